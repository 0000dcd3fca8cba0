"""Published systems as studies on stores: each a flat file that says what is trained, and judges the paper's claims."""
