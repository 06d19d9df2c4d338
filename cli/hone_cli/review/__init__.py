"""People review generated rows: a folder, a pod or a page, in a browser or a terminal."""
