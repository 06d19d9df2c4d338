"""What all of this needs: paths, programs, a console."""
