import copy
import json
import os
import pickle
import re
import tracemalloc

import numpy as np
import pytest

from delg_jax.data import ground_truth, open_retrieval, open_training
from delg_jax.data.ground_truth import retrieval
from delg_jax.errors import UserError
from tests.photographs import make_revisited
from tests.tiny import retrieval_config

CONTENT = {
    "imlist": ["a", "b", "c"],
    "qimlist": ["q"],
    "gnd": [{"bbx": [0, 1.5, 20, 30], "easy": [0], "hard": [], "junk": [2]}],
}


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def write(folder, content, kind="json", protocol=2):
    path = folder / f"gnd_test.{kind}"
    data = pickle.dumps(content, protocol) if kind == "pkl" else json.dumps(content).encode()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("kind", "protocol"), [("json", 0), ("pkl", 2), ("pkl", 4)])
def test_plain_content_comes_back(tmp_path, kind, protocol):
    assert ground_truth.read(write(tmp_path, CONTENT, kind, protocol)) == CONTENT


@pytest.mark.parametrize("ending", [".pickle", ".PKL"])
def test_other_endings_of_pickles_are_known(tmp_path, ending):
    path = write(tmp_path, CONTENT, "pkl").rename(tmp_path / f"gnd{ending}")
    assert ground_truth.read(path) == CONTENT


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_of_an_editor_is_read(tmp_path, encoding):
    path = write(tmp_path, CONTENT)
    path.write_bytes((path.read_text().replace("\n", "\r\n") + "\r\n\r\n").encode(encoding))
    assert ground_truth.read(path) == CONTENT


def test_names_of_odd_bytes_become_text(tmp_path):
    path = write(tmp_path, {**CONTENT, "imlist": ["caf\udce9", *CONTENT["imlist"][1:]]})
    assert ground_truth.read(path)["imlist"][0] == "caf\\xe9"


def test_a_pickle_of_python_2_is_read(tmp_path):
    path = tmp_path / "gnd.pkl"
    path.write_bytes(
        b"(dp0\nS'imlist'\np1\n(lp2\nS'a'\nasS'qimlist'\n(lp3\nS'q'\nasS'gnd'\n(lp4\n"
        b"(dp5\nS'bbx'\n(lp6\nF1.0\naI2\naI3\naI4\nasS'easy'\n(lp7\nI0\nasS'hard'\n"
        b"(lp8\nsS'junk'\n(lp9\nsas."
    )
    assert ground_truth.read(path)["gnd"] == [
        {"bbx": [1.0, 2, 3, 4], "easy": [0], "hard": [], "junk": []}
    ]


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_code_in_a_pickle_is_refused_and_not_executed(tmp_path, protocol):
    touched = tmp_path / "touched"
    content = {**CONTENT, "extra": Touch(touched)}
    with pytest.raises(UserError, match=r"(posix|nt)\.system"):
        ground_truth.read(write(tmp_path, content, "pkl", protocol))
    assert not touched.exists()


@pytest.mark.parametrize(
    ("harmless", "names"),
    [
        (np.random.PCG64(1), r"numpy\.random"),
        (complex(1, 2), r"builtin.*\.complex"),
        ({1: print}, r"builtin.*\.print"),
    ],
)
def test_any_class_or_function_is_refused(tmp_path, harmless, names):
    with pytest.raises(UserError, match=names):
        ground_truth.read(write(tmp_path, {**CONTENT, "extra": harmless}, "pkl"))


@pytest.mark.parametrize("kind", ["json", "pkl"])
@pytest.mark.parametrize("length", [0, 1, 10, -1])
def test_a_truncated_file_is_refused(tmp_path, kind, length):
    path = write(tmp_path, CONTENT, kind)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=rf"ground truth = '.*gnd_test\.{kind}'"):
        ground_truth.read(path)


def changed(path, value):
    """CONTENT with one value replaced, or removed if it is None."""
    content = copy.deepcopy(CONTENT)
    target = content
    for part in path[:-1]:
        target = target[part]
    if value is None:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return content


OUTSIDE = ("/etc/a", "../a", "b/../../a", "a\0", "")  # names of nothing in the folder
BBX = CONTENT["gnd"][0]["bbx"]
GND = ("gnd", 0)


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        *(((), value, "imlist, qimlist and gnd") for value in ([], "text", 3, {})),
        (("gnd",), None, "imlist, qimlist and gnd"),
        *((("imlist",), value, "imlist .*list") for value in ("abc", [1, 2, 3], [])),
        (("qimlist",), {"q": 0}, "qimlist .*list"),
        *((("imlist", 1), name, f"imlist .*{re.escape(repr(name))}") for name in OUTSIDE),
        *((("qimlist", 0), name, f"qimlist .*{re.escape(repr(name))}") for name in OUTSIDE),
        (("qimlist",), ["q", "r"], "2 queries .*1 .*gnd"),
        (("gnd",), "x", "1 queries .*no .*gnd"),
        (GND, [], r"gnd\[0\] .*bbx, easy, hard and junk"),
        ((*GND, "junk"), None, r"gnd\[0\] .*lacks junk .*\[\]"),
        ((*GND, "hard"), None, r"gnd\[0\] .*lacks hard .*\[\]"),
        ((*GND, "bbx"), None, r"gnd\[0\] .*lacks bbx .*\[0, 0, width, height\]"),
        *(
            ((*GND, "bbx"), value, r"gnd\[0\]\.bbx .*four")
            for value in ([1, 2, 3], ["1", "2", "3", "4"], "1234", 7)
        ),
        ((*GND, "bbx"), [1, 2, float("nan"), 4], r"gnd\[0\]\.bbx .*finite"),
        ((*GND, "bbx"), [0, 0, 10**400, 1], r"gnd\[0\]\.bbx .*finite"),
        ((*GND, "easy"), [3], r"gnd\[0\]\.easy .*3, .*imlist \(0 to 2\)"),
        ((*GND, "hard"), [-1], r"gnd\[0\]\.hard .*-1, .*imlist"),
        ((*GND, "easy"), [0, 0], r"gnd\[0\]: easy .*0 \(a\) twice"),
        ((*GND, "junk"), [2, 1, 2], r"gnd\[0\]: junk .*2 \(c\) twice"),
        ((*GND, "easy"), [0, 2], r"gnd\[0\]: .*2 \(c\) .*easy and junk"),
        ((*GND, "hard"), [1, 0], r"gnd\[0\]: .*0 \(a\) .*easy and hard"),
        ((*GND, "hard"), [2], r"gnd\[0\]: .*2 \(c\) .*hard and junk"),
        (("imlist", 1), "a", r"gnd\[0\]: a .*0 in easy .*1 in no list"),
        (("imlist", 2), "a", r"gnd\[0\]: a .*0 in easy .*2 in junk"),
        ((*GND, "hard"), [False], r"gnd\[0\]\.hard .*whole numbers"),
        ((*GND, "junk"), [1.5], r"gnd\[0\]\.junk .*whole numbers"),
        ((*GND, "junk"), ["1"], r"gnd\[0\]\.junk .*whole numbers"),
        ((*GND, "easy"), 1, r"gnd\[0\]\.easy .*whole numbers"),
        ((*GND, "landmark"), [1], r"gnd\[0\]\.landmark"),
        # The older layout is checked alike
        ((*GND, "ok"), [1], r"gnd\[0\] .*easy and hard .*ok"),
        (GND, {"bbx": BBX, "ok": [1]}, r"gnd\[0\] .*bbx, ok and junk; .*lacks junk"),
        (GND, {"bbx": BBX, "ok": [1], "junk": [1]}, r"gnd\[0\]: .*1 \(b\) .*easy and junk"),
        (
            GND,
            {"bbx": BBX, "good": [1], "ok": [1], "junk": []},
            r"gnd\[0\]: easy .*1 \(b\) twice",
        ),
        (GND, {"bbx": BBX, "ok": [7], "junk": []}, r"gnd\[0\]\.ok .*7"),
    ],
)
@pytest.mark.parametrize("kind", ["json", "pkl"])
def test_another_layout_is_refused(tmp_path, path, value, names, kind):
    content = changed(path, value) if path else value
    with pytest.raises(UserError, match=names):
        ground_truth.read(write(tmp_path, content, kind))


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # one object, kept as number 2,147,483,647
        b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"abc.",  # a terabyte of bytes
        b"\x80\x04\x8d" + (2**40).to_bytes(8, "little") + b"abc.",  # and of text
        pickle.dumps(np.zeros(3, np.uint8), 2).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"),
    ],
)
def test_a_pickle_that_asks_for_all_memory_is_refused(tmp_path, bomb):
    path = tmp_path / "gnd.pkl"
    path.write_bytes(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="cannot be read"):
            ground_truth.read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_an_image_listed_twice_may_be_in_one_list(tmp_path):
    content = changed(("imlist", 1), "a")
    content["gnd"][0]["easy"] = [0, 1]
    assert ground_truth.read(write(tmp_path, content)) == content


def old(**lists):
    """CONTENT with the lists of the older layout."""
    return {**CONTENT, "gnd": [{"bbx": CONTENT["gnd"][0]["bbx"], **lists}]}


@pytest.mark.parametrize("kind", ["json", "pkl"])
@pytest.mark.parametrize(
    ("lists", "easy"),
    [({"ok": [1], "junk": [2]}, [1]), ({"good": [0], "ok": [1], "junk": [2]}, [0, 1])],
)
def test_the_older_key_ok_is_what_is_easy(tmp_path, kind, lists, easy):
    entry = ground_truth.read(write(tmp_path, old(**lists), kind))["gnd"][0]
    assert entry == {"bbx": [0, 1.5, 20, 30], "easy": easy, "hard": [], "junk": [2]}


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_numpy_in_a_pickle_are_lists(tmp_path, protocol):
    content = {
        "imlist": np.array(CONTENT["imlist"]),
        "qimlist": np.array(CONTENT["qimlist"], object),
        "gnd": [
            {
                "bbx": np.array([0, 1.5, 20, 30], ">f4"),
                "easy": np.array([0]),
                "hard": [],
                "junk": [np.int32(2)],
            }
        ],
    }
    content["gnd"][0]["hard"] = np.zeros(0, np.int64)
    assert ground_truth.read(write(tmp_path, content, "pkl", protocol)) == CONTENT


def test_arrays_that_python_2_wrote_are_lists(tmp_path):
    new = pickle.dumps({**CONTENT, "qimlist": np.array(["q"])}, protocol=2)
    path = tmp_path / "gnd.pkl"
    path.write_bytes(new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert ground_truth.read(path) == CONTENT


@pytest.mark.parametrize(
    ("easy", "names"),
    [
        (np.array([0.0]), r"gnd\[0\]\.easy .*whole numbers"),
        (np.array([True]), r"gnd\[0\]\.easy .*whole numbers"),
        (np.array([[0]]), r"gnd\[0\]\.easy .*whole numbers"),
        (np.array(0), r"gnd\[0\]\.easy .*whole numbers"),
        (np.array([0j]), "array of complex128"),
        (np.zeros(1, "i4,i4"), "array of "),
        (np.array([[0], [1]], object), "array of objects"),
        (np.array([1, print], object), r"builtin.*\.print"),
    ],
)
def test_arrays_of_something_else_are_refused(tmp_path, easy, names):
    content = changed(("gnd", 0, "easy"), easy)
    with pytest.raises(UserError, match=names):
        ground_truth.read(write(tmp_path, content, "pkl", 5))


def test_queries_that_share_most_of_their_images_show_one_landmark():
    lists = [[0, 1, 2], [7], [2, 3, 4, 5], [], [1, 2, 9, 9], [7, 8], []]
    found = ground_truth.query_landmarks(lists)
    # 0 and 4 share two of three; 2 shares one of three or four with both; 1 is half of 5
    assert found.tolist() == [0, 1, 2, 3, 0, 1, 4]
    order = [6, 4, 2, 0, 5, 3, 1]
    again = ground_truth.query_landmarks([lists[query] for query in order])
    same = found[order][:, None] == found[order][None, :]
    np.testing.assert_array_equal(again[:, None] == again[None, :], same)
    assert ground_truth.query_landmarks([]).tolist() == []
    assert ground_truth.query_landmarks([["x"], [], ["x", "y"]]).tolist() == [0, 1, 0]


def entry(images, **more):
    return {"bbx": [0, 0, 1, 1], "easy": images, "hard": [], "junk": [], **more}


def test_newer_queries_belong_to_the_landmark_whose_images_they_share():
    """As the 15 that Revisited Oxford added to the 55 of Oxford, whose names say nothing."""
    rng = np.random.default_rng(0)
    places = [np.arange(60 * number, 60 * number + 50) for number in range(11)]
    old = [entry(place.tolist()) for place in places for _ in range(5)]
    whose = rng.integers(0, 11, 15)
    # A newer query has its own copy of the list: some are missing, some are of the street
    new = [
        entry([*rng.choice(places[landmark], 35, False).tolist(), *range(1000, 1010)])
        for landmark in whose
    ]
    found = ground_truth.landmarks_of([*old, *new])
    assert found[:55].tolist() == np.repeat(range(11), 5).tolist()
    assert found[55:].tolist() == whose.tolist()


def test_landmarks_of_a_file_that_names_them(tmp_path):
    shared = [entry([0, 1], landmark="tower"), entry([0, 1], landmark="bridge")]
    content = {"imlist": ["a", "b"], "qimlist": ["q", "r"], "gnd": shared}
    read = ground_truth.read(write(tmp_path, content))["gnd"]
    assert ground_truth.landmarks_of(read).tolist() == [1, 0]
    unnamed = [entry([0, 1]), entry([0, 1])]
    assert ground_truth.landmarks_of(unnamed).tolist() == [0, 0]


def test_a_landmark_of_some_queries_alone_is_refused(tmp_path):
    wrong = [entry([0], landmark="x"), entry([0])]
    content = {"imlist": ["a"], "qimlist": ["q", "r"], "gnd": wrong}
    with pytest.raises(UserError, match="landmark in 1 of 2"):
        ground_truth.read(write(tmp_path, content))


@pytest.mark.real
def test_the_landmarks_of_revisited_oxford(shared):
    content = ground_truth.read(shared / "data" / "roxford5k_1614" / "gnd_roxford5k.json")
    assert ground_truth.landmarks_of(content["gnd"]).tolist() == np.repeat(range(11), 5).tolist()


@pytest.fixture
def root(tmp_path):
    return make_revisited(tmp_path / "photographs", places=3)


@pytest.fixture
def data(root):
    return retrieval_config(root).data.copy_and_resolve_references().unlock()


def test_database_and_queries_are_those_of_the_ground_truth(root, data):
    found = retrieval(data)
    content = json.loads((root / "gnd_drawn.json").read_text())
    assert found.database.names == content["imlist"]
    assert found.queries.names == content["qimlist"]
    assert found.ground_truth == content["gnd"]
    assert found.database.read(1) == (root / "jpg" / "place0_far.jpg").read_bytes()
    assert found.queries.labels.tolist() == [-1] * 3


@pytest.mark.parametrize(
    ("deleted", "names"),
    [
        ("jpg/place1_near.jpg", " 1 images .*: place1_near$"),
        ("jpg/query2.jpg", " 1 images .*: query2$"),
        ("jpg/place*", r" 6 images .*: (\w+, ){4}\w+ \.\.\.$"),
        ("gnd_drawn.json", r"config\.data\.root = .*gnd_.*none"),
    ],
)
def test_absent_files_are_named(root, data, deleted, names):
    for path in root.glob(deleted):
        path.unlink()
    with pytest.raises(UserError, match=names):
        retrieval(data)


def test_of_two_ground_truths_one_must_be_chosen(root, data):
    (root / "gnd_other.json").write_text((root / "gnd_drawn.json").read_text())
    with pytest.raises(UserError, match=r"gnd_drawn\.json, gnd_other\.json"):
        retrieval(data)
    data.ground_truth = "gnd_other.json"
    assert len(retrieval(data).queries) == 3


@pytest.mark.parametrize(
    ("field", "value", "subject"),
    [
        ("ground_truth", "gnd_absent.json", r"ground truth = '.*gnd_absent\.json'"),
        ("root", "/no/such/folder", r"config\.data\.root = '/no/such/folder'"),
    ],
)
def test_a_path_to_nothing_is_refused(data, field, value, subject):
    data[field] = value
    with pytest.raises(UserError, match=subject):
        retrieval(data)


def test_a_data_set_is_opened_by_its_name(data):
    assert len(open_retrieval(data).database) == 6
    data.name = "gldv2_clean"
    with pytest.raises(UserError, match=r"config\.data\.name = 'gldv2_clean'"):
        open_retrieval(data)
    for name in ("revisited", "oxford"):
        data.name = name
        with pytest.raises(UserError, match=rf"config\.data\.name = '{name}'.* synthetic, folder"):
            open_training(data)


@pytest.mark.parametrize("ending", [".jpg", ".JPG", ".png"])
def test_names_with_an_ending_are_understood(root, data, ending):
    path = root / "gnd_drawn.json"
    content = json.loads(path.read_text())
    plain = retrieval(data)
    for name in ("imlist", "qimlist"):
        content[name] = [f"{image}{ending}" for image in content[name]]
    path.write_text(json.dumps(content))
    found = retrieval(data)
    assert found.database.names == plain.database.names
    assert found.queries.names == plain.queries.names
    assert found.database.read(1) == plain.database.read(1)


@pytest.mark.parametrize("named", ["place0_near", "place0_near.JPG", "place0_near.jpg"])
def test_files_of_another_ending_are_found(root, data, named):
    path = root / "gnd_drawn.json"
    path.write_text(path.read_text().replace('"place0_near"', f'"{named}"'))
    picture = (root / "jpg" / "place0_near.jpg").rename(root / "jpg" / "place0_near.JPG")
    found = retrieval(data)
    assert found.database.names[:2] == ["place0_near.JPG", "place0_far.jpg"]
    assert found.database.read(0) == picture.read_bytes()
    assert found.queries.names[0] == "query0"


def test_a_name_with_dots_is_no_ending(root, data):
    path = root / "gnd_drawn.json"
    path.write_text(path.read_text().replace('"place0_near"', '"place0.v2"'))
    (root / "jpg" / "place0_near.jpg").rename(root / "jpg" / "place0.v2.jpg")
    assert retrieval(data).database.names[0] == "place0.v2"
