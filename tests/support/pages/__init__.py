"""What people and foreign programs see: terminals, pages, schemas."""
