"""Images and videos decoded in a process of their own: whatever a file does to its decoder, it costs one row.

Each process that decodes keeps one child and asks it for one image after the other (`process`). The child (`child`) is
started by exec, never by fork, for lance and Ray do not survive a fork; it knows NumPy, Pillow and PyAV, but no model,
no table and no cluster. They talk over a socket pair in lock-step (`frames`): JSON and bytes, never pickle.

    question   Decoder.to_json()                          and the encoded image
    answer     {"thumbnail": bytes of it, null for none}  and the pixels, then the thumbnail
    question   PictureDecoder.to_json()                   and the encoded image
    answer     {"size": [width, height]}                  and the pixels
               {"kind": …, "detail": …}                   the image's own reason
               {"crash": …}                               anything else that the decoder raised

An image whose decoder dies, hangs or runs out of memory is tried once more in a fresh process: the first may have been
worn by an earlier image, or killed by somebody else. Then the row has its reason. So one image costs at most two
processes and twice `Decoder.seconds`.
"""

from __future__ import annotations

from lance_align.sandbox.asking import Asking, Decoded
from lance_align.sandbox.decoder import Decoder
from lance_align.sandbox.pictures import PictureDecoder
from lance_align.sandbox.process import decoder_pid

__all__ = ["Asking", "Decoded", "Decoder", "PictureDecoder", "decoder_pid"]
