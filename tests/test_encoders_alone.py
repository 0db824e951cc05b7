"""The encoders work where only torch and transformers are installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lance_align.benchmarks import weights
from tests import align_models

SCRIPT = """
import sys

ALLOWED = frozenset(sys.argv[2].split(","))

class Only:
    '''A finder that finds the standard library and what torch and transformers bring.'''

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in ALLOWED or top in sys.stdlib_module_names or top.startswith("_sysconfigdata")
        return self.finder.find_spec(name, path, target) if known else None

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Only(finder) for finder in sys.meta_path]

import lance_align
import lance_align.benchmarks.gpu
from lance_align.encoders import load_encoder, resolve_spec
from lance_align.errors import MissingExtraError
import numpy as np

spec = resolve_spec(sys.argv[1])
encoder = load_encoder(type(spec).from_json(spec.to_json()))
texts = encoder.encode_texts(["a red cat", None, ""])
assert texts.reasons == (None, "null: no text", None), texts.reasons
pixels = np.random.default_rng(0).integers(0, 256, (3, *spec.image.crop, 3), dtype=np.uint8)
vectors = encoder.encode_pixels(pixels)
assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
try:
    encoder.encode_images([b"a picture"])
except MissingExtraError as error:
    assert "Pillow" in str(error)
else:
    raise AssertionError("Pillow was there")
present = {name.partition(".")[0] for name in sys.modules}
assert not present & {"ray", "lancedb", "lance", "pyarrow", "pandas", "matplotlib", "PIL"}, present
print("ok")
"""


def _brought_by(*roots: str) -> set[str]:
    """Import names of distributions and of all they require on this machine, without extras."""
    closure: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in closure:
            closure.add(name)
            requirements = map(Requirement, distribution(name).requires or [])
            waiting += [
                need.name for need in requirements if need.marker is None or need.marker.evaluate({"extra": ""})
            ]
    return {
        module
        for module, owners in packages_distributions().items()
        if any(canonicalize_name(owner) in closure for owner in owners)
    }


def test_text_and_pixels_are_embedded_with_nothing_but_torch_and_transformers(tmp_path: Path) -> None:
    allowed = _brought_by("torch", "transformers")
    assert {"torch", "transformers", "numpy", "safetensors", "tokenizers", "huggingface_hub"} <= allowed
    assert not allowed & {"ray", "lancedb", "lance", "pyarrow", "pandas", "PIL"}
    model = weights.build_model(align_models.small_config(), seed=4, warm_up=8)
    align_models.save_checkpoint(model, tmp_path, preprocessor=align_models.SMALL_PREPROCESSOR)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), ",".join([*sorted(allowed), "lance_align"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "ok"


def test_importing_the_encoders_imports_no_torch() -> None:
    script = (
        "import sys; sys.modules['lancedb'] = None\n"
        "import lance_align.encoders\n"
        "assert not {'torch', 'transformers', 'PIL'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
