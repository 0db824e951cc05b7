"""The index of a vector column: built or extended, and measured with the texts that people ask.

building  `build_index`, and `search_settings` that it found
recall    what an index finds of what exact search finds
sample    texts drawn from a table, to measure with
"""
