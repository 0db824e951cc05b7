"""Lance tables of embeddings: where they lie, what their columns are, how rows get in, what is there already.

    location   database and name to the URI of the dataset
    handles    an open LanceDB table to its dataset
    names      which a column can have, and how one stands in SQL
    layout     which columns a table has, and what is embedded into which
    schema     the Arrow schema; whether rows fit a table that is there
    metadata   LanceDB's embedding functions and our record of the model
    checksums  of each row's vectors
    digests    of each row's content
    fragments  rows to data files, on workers
    conflicts  commits tried again
    creation   a table opened or created
    pending    data files before they are committed
    trace      what tells a table from one that was rolled back or replaced
    commits    data files to table versions, on the driver
    removal    rows that leave for others of their ids
    gone       rows that leave because the input no longer has them
    filling    vectors into rows that are there
    done       ids and counts of what is there
    index_plan which index a column should have
    indexes    found, built, extended
    index_report what was done about one
    search_settings how one is to be searched
    orphans    files that no version needs
    failures   Lance's errors as one line with a remedy

Nothing here knows a model's weights (torch) or a cluster (Ray).
"""

from __future__ import annotations
