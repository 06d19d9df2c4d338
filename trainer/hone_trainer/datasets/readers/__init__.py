"""Files of a source to rows as they are read: bytes, compression, lines, tables, each row with its place."""
