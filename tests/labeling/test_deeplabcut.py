import pytest

import videomac
from tests.labeling.made_up import QUICK, joints_of, write_points
from videomac.errors import UserError
from videomac.labeling.deeplabcut import is_deeplabcut, read_csv, read_h5
from videomac.labeling.formats import read_labels
from videomac.labeling.frames import open_video
from videomac.labeling.labels import Point

LABELS = """scorer,,,me,me,me,me
bodyparts,,,nose,nose,tail,tail
coords,,,x,y,x,y
labeled-data,walk,img0004.png,1.5,2.5,,
labeled-data,walk,img0012.png,3,4,5,6
"""
ANIMALS = """scorer,me,me,me,me,me,me
individuals,fly1,fly1,fly1,single,single,single
bodyparts,nose,nose,nose,food,food,food
coords,x,y,likelihood,x,y,likelihood
7,1,2,0.9,3,4,0.2
"""


def test_labels_of_every_layout_are_read(tmp_path):
    path = tmp_path / "CollectedData_me.csv"
    path.write_text(LABELS)
    assert is_deeplabcut(path)
    assert read_csv(path).points == {
        4: {"nose": Point(1.5, 2.5), "tail": Point(0, 0, False)},
        12: {"nose": Point(3, 4), "tail": Point(5, 6)},
    }
    path.write_text(LABELS.replace(",,,", ",").replace("labeled-data,walk,", "labeled-data/walk/"))
    assert read_csv(path).frames == [4, 12]
    path.write_text(ANIMALS)
    assert read_csv(path).points == {7: {"fly1.nose": Point(1, 2), "food": Point(3, 4, False)}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("scorer,me\nbodyparts,a\n", "rows bodyparts and coords are missing"),
        (LABELS.replace("img0004", "first"), "line 4: 'first.png' does not say which frame"),
        (LABELS.replace("2.5", "two"), "line 4: 'two' is not a number"),
        ("".join(LABELS.splitlines(keepends=True)[:3]), "holds no frame"),
    ],
)
def test_tables_that_are_wrong_are_explained(tmp_path, text, sentence):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_csv(tmp_path / "a.csv")


def test_pandas_reads_what_was_written(scene, folder, tmp_path):
    pandas = pytest.importorskip("pandas")
    joints = joints_of(scene, [0])
    write_points(tmp_path / "p.csv", joints)
    videomac.propagate_video(folder, labels=tmp_path / "p.csv", out=tmp_path / "out", formats=["dlc"], **QUICK)
    table = pandas.read_csv(tmp_path / "out" / "dlc.csv", header=[0, 1, 2], index_col=0)
    assert table.columns.names == ["scorer", "bodyparts", "coords"] and list(table.index) == list(range(10))
    assert table.loc[0, ("videomac", "joint2", "x")] == joints.points[0]["joint2"].x
    assert (tmp_path / "out" / "dlc.csv").is_file()
    back = read_labels(tmp_path / "out" / "dlc.csv", open_video(folder), 0, (64, 96))
    assert back.points[0] == joints.points[0]


def test_hdf5_is_read_as_the_csv_is(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    (tmp_path / "a.csv").write_text(LABELS)
    table = pandas.read_csv(tmp_path / "a.csv", header=[0, 1, 2], index_col=[0, 1, 2])
    table.to_hdf(tmp_path / "a.h5", key="df_with_missing")
    assert read_h5(tmp_path / "a.h5").points == read_csv(tmp_path / "a.csv").points
    (tmp_path / "b.h5").write_text("nothing")
    with pytest.raises(UserError, match="no table of DeepLabCut"):
        read_h5(tmp_path / "b.h5")
