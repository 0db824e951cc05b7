"""The door to `lance_align.embedding_function`: it imports LanceDB before it, as LanceDB's own import does.

Of two threads of a new process one may import LanceDB, which then imports the function, and the other the function,
which then imports LanceDB: each would wait for the other, and Python would let one go on with a half made module.
"""

from __future__ import annotations

import lancedb  # noqa: F401  # first; see above

from lance_align.embedding_function import AlignFunction as AlignFunction
from lance_align.embedding_function import table_function as table_function
