"""Videos to pixels: the only door for untrusted videos, as `lance_align.images` is for pictures.

    opening    bytes to an opened container and its stream of frames, out of closed lists, from memory alone
    sampling   which frames are taken: those that transformers takes
    timeline   when each frame is shown, and from which key frame it can be decoded
    decoding   frames from a key frame on, without what damage has touched
    frames     the taken frames, at once reduced to what the model takes

PyAV, which brings FFmpeg along (extra ``video``), is imported when the first video is opened.
"""

from __future__ import annotations

from lance_align.videos.frames import pixels_and_thumbnail
from lance_align.videos.opening import FORMATS, check_installed, is_video, pyav
from lance_align.videos.sampling import sampled_places, standing_in

__all__ = ["FORMATS", "check_installed", "is_video", "pixels_and_thumbnail", "pyav", "sampled_places", "standing_in"]
