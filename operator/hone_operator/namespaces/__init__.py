"""What a namespace gets in addition to Jobs: rights, closed ports, networks, aliases for servers."""
