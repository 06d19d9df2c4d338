"""Other ways to what the commands do: Python programs, agents, a page in a browser."""
