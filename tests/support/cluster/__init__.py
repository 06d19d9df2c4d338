"""The API server, the operator as a process, and the objects that it makes."""
