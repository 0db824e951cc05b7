"""The parts of the jobs that fill a column of a table that is there: with vectors, or with texts about pictures.

gaps       rows of a table that lack a value, to pixels and prompts, in tasks
pictures   whole pictures as columns
making     what an actor does with a block
vectors    pixels and texts to vectors, in actors
texts      pictures and prompts to texts, in actors
rounds     when values become a version of the table
running    one run of it, on the driver
"""
