"""The parts of a backfill, which fills a column of a table that is there.

gaps       rows of a table that lack a vector, to pixels, in tasks
vectors    pixels and texts to vectors, in actors
rounds     when vectors become a version of the table
running    one run of it, on the driver
"""
