"""From sources to views: decoding, transforms, drawing, mixing, fingerprints, replay."""
