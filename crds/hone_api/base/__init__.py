"""What every model of the API is made of: the base class, rules, quantities, words of messages."""
