"""What worker processes do with rows: tasks read and decode, actors embed and write.

reading    tables of a split, read again where that may help
ahead      images behind a network, a few at once
decode     rows to pixels, in tasks
batches    how many rows the model is given at once, and which are to blame for an error
encode     pixels and texts to vectors and fragments, in actors
"""
