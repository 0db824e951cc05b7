"""Whatever holds rows to embed, behind one small interface.

open_source   a path or URI to a `Source`; the format is recognised
base          `Source` and `Split`: a list of parts made without reading data, and the rows of one part
schemas       one schema for all files of a source, and their rows read with it
partitions    columns in the names of folders
location      pyarrow filesystems, and what paths found in data may point at
listing       the files below a folder, and what else lies there, by kind
inline        pictures in a text cell: data URIs and base64
content       what a file is by its first bytes
folder        a folder of images
metadata      a Hugging Face image folder: pictures and metadata files
columnar      Parquet, Arrow IPC and Feather
pages         the sizes of a Parquet file's pages
delimited     CSV, and TSV and other relatives
jsonlines     JSON Lines
lists         what these two share: lines, ranges of rows, one schema
roles         names by which columns are recognised
webdataset    tar shards of samples
tars          a tar archive, read to its proper end
lance_table   another Lance or LanceDB table
"""

from __future__ import annotations

from lance_align.jobs.sources.base import Source, Split
from lance_align.jobs.sources.opening import Format, open_source

__all__ = ["Format", "Source", "Split", "open_source"]
