"""The command `hone`: work of people on Hone's objects that kubectl does not do."""
