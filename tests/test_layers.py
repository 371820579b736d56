"""The import graph: each folder imports only from the levels above it.

Found by parsing, so that nothing is imported, and imports inside functions count too.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "diffusion_jax"

LEVELS = (
    ("types", "system", "metrics"),
    ("models", "data", "report"),
    ("diffusion", "text", "training"),
    ("codecs",),
    ("objectives", "samplers", "guidance"),
    ("restoration",),
    ("generation",),
    ("evaluation",),
    ("from_config",),
    ("plan",),
    ("run",),
    ("sweep",),
    ("cli",),
    ("__main__", "launch", "configs", "experiments"),
)
"""The parts of the package, as in the README; each imports from the levels above its own."""

PRIVATE_JAX = {"diffusion_jax/plan/absent_gpu.py"}
"""Files that may use `jax._src`: to compile for GPUs that are not there nothing is public."""

FORBIDDEN = {"samplers": {"models"}, "guidance": {"models"}}
CONFIG_FILES = {"from_config", "sweep", "cli", "configs"}

FILES = sorted(
    path for folder in (PACKAGE, "configs", "experiments") for path in (ROOT / folder).rglob("*.py")
) + sorted(ROOT.glob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def part_of(path: Path) -> str:
    """The part of the design that a file belongs to: its module or folder in the package."""
    places = path.relative_to(ROOT).with_suffix("").parts
    return places[1] if places[0] == PACKAGE else places[0]


def imports(tree: ast.AST, anywhere: bool = True) -> set[str]:
    """Dotted names imported; without those inside of functions if not `anywhere`."""
    names = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names}
        elif anywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names |= imports(node, anywhere)
    return names


def parts_imported(tree: ast.AST) -> set[str]:
    """Parts of the package that a file imports."""
    names = (name.split(".") for name in imports(tree))
    return {name[1] for name in names if name[0] == PACKAGE and len(name) > 1}


def level_of(part: str) -> int:
    for number, level in enumerate(LEVELS):
        if part in level:
            return number
    raise AssertionError(f"{part!r} has no level: give it one in LEVELS and in the README")


def wrong_imports(part: str, tree: ast.AST) -> set[str]:
    """Parts that `part` imports and must not."""
    imported = parts_imported(tree) - {part}
    if level_of(part) == 0:
        return imported - {"types"}
    wrong = {other for other in imported if level_of(other) >= level_of(part)}
    return wrong | (imported & FORBIDDEN.get(part, set()))


def uses_private_jax(tree: ast.AST) -> bool:
    attributes = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "_src")
    return any("_src" in name.split(".") for name in imports(tree)) or any(attributes)


def top_packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@every_file
def test_imports(path):
    tree, part = ast.parse(path.read_text()), part_of(path)
    if part != "__init__":
        assert not wrong_imports(part, tree), f"{part} imports from a level that is not above it"
    assert not any(name.startswith(".") for name in imports(tree)), "relative import"
    if str(path.relative_to(ROOT)) not in PRIVATE_JAX:
        assert not uses_private_jax(tree), "jax._src is private"
    if part not in CONFIG_FILES and path.stem not in CONFIG_FILES:
        assert "ml_collections" not in top_packages(imports(tree)), (
            "configs become objects in from_config"
        )
    if path.is_relative_to(ROOT / PACKAGE):
        top_level = top_packages(imports(tree, anywhere=False))
        assert "tensorflow" not in top_level, (
            "import tensorflow inside of the function that needs it"
        )


def test_the_package_was_found():
    assert {part for level in LEVELS for part in level} == {part_of(p) for p in FILES} - {
        "__init__"
    }


def test_the_top_of_the_package_is_small():
    entries = [p for p in (ROOT / PACKAGE).iterdir() if not p.name.startswith("__")]
    assert len(entries) <= 21


@pytest.mark.parametrize(
    ("part", "source", "wrong"),
    [
        ("diffusion", "from diffusion_jax.types import Array", set()),
        ("samplers", "from diffusion_jax.samplers.loop import sample", set()),
        (
            "codecs",
            "from diffusion_jax.data import Kind\nfrom diffusion_jax.types import Array",
            set(),
        ),
        ("codecs", "from diffusion_jax.objectives.parts import Times", {"objectives"}),
        ("training", "from diffusion_jax.codecs.codec import Identity", {"codecs"}),
        ("samplers", "def f():\n    from diffusion_jax.models.dit import DiT", {"models"}),
        ("samplers", "import diffusion_jax.guidance.clip", {"guidance"}),
        ("guidance", "from diffusion_jax import samplers, types", {"samplers"}),
        ("models", "if True:\n    from diffusion_jax import diffusion", {"diffusion"}),
        ("data", "from diffusion_jax.diffusion.schedules import Flow", {"diffusion"}),
        ("metrics", "from diffusion_jax.system.files import sync", {"system"}),
        ("types", "from diffusion_jax import cache", {"cache"}),
    ],
)
def test_wrong_imports_are_seen(part, source, wrong):
    assert wrong_imports(part, ast.parse(source)) == wrong


@pytest.mark.parametrize(
    ("source", "private"),
    [
        ("from jax._src import core", True),
        ("import jax._src.core", True),
        ("from jax import _src", True),
        ("import jax\nx = jax._src.core", True),
        ("import jax\nx = jax.numpy", False),
    ],
)
def test_private_jax_is_seen(source, private):
    assert uses_private_jax(ast.parse(source)) == private


def test_imports_inside_of_functions_are_told_apart():
    tree = ast.parse("try:\n    import a.b\nexcept E:\n    pass\ndef f():\n    import c")
    assert imports(tree) == {"a.b", "c"}
    assert imports(tree, anywhere=False) == {"a.b"}


@pytest.mark.parametrize(
    ("words", "places"),
    [
        ("expanduser", {"data/sets/tfds_sets.py", "cli/main.py"}),
        ("Image.open(", {"data/images.py", "data/sets/emoji_pictures.py", "sweep/figures.py"}),
    ],
)
def test_what_people_give_is_opened_in_one_place(words, places):
    """Paths by `path_of`, pictures by `open_picture`; the others open what the project made."""
    found = {
        path.relative_to(ROOT / PACKAGE).as_posix()
        for path in FILES
        if path.is_relative_to(ROOT / PACKAGE) and words in path.read_text()
    }
    assert {name for name in found if not name.startswith("system/")} <= places
