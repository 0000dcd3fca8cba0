"""Stage two trains students on replayed views and cached soft labels. `stage` reads first."""
