"""The file of the first templates, and what a template must not say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.api import DEFAULT_TEMPLATE, Template
from causeway.api.templates import RoleRules
from causeway.errors import ConfigError
from control.registry import templates
from control.registry.store import Store
from control.templates import MAX_FILE_BYTES, SEED_FILE, read_templates, seed_templates

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

ROOT = Path(__file__).parents[2]


# --- the file ---------------------------------------------------------------------------------


def test_the_file_that_comes_along() -> None:
    found = read_templates(SEED_FILE)
    assert found[DEFAULT_TEMPLATE] == Template()
    assert found["sfu"].sfu_only
    assert set(found) >= {"default", "sfu", "meeting", "webinar", "audio"}


def test_a_wheel_has_the_file_where_it_is_looked_for() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"configs/templates.toml" = "control/templates.toml"' in project
    assert (ROOT / "configs" / "templates.toml").read_bytes() == SEED_FILE.read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[meeting]", "there must be a template [default]"),
        ("[default]\nhologram = true", "[default]: Object contains unknown field `hologram`"),
        ("[default]\n[a]\nparticipant_limit = 0", "[a]: participant_limit: 0 would let nobody in"),
        ("[default]\n[a]\nparticipant_limit = '9'", "[a]: Expected `int`"),
        ('[default]\n["a b"]', "[a b]: "),
        ("default = 1", "[default]: Expected `object`"),
        ("[default", "not TOML"),
        ("# " + "x" * MAX_FILE_BYTES, "larger than"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "templates.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        read_templates(file)
    assert str(file) in str(refused.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_templates(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML"):
        read_templates(tmp_path / "binary.toml")


async def test_the_first_start_saves_them_and_later_ones_leave_edits_alone(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    store = Store(engine)
    file = tmp_path / "templates.toml"
    file.write_text("[default]\nempty_ttl = 60\n[lecture]\nparticipant_limit = 5\n", encoding="utf-8")
    await seed_templates(store, str(file))
    shown = {view.name: view for view in await store.snapshot(templates.list_newest)}
    assert {name: view.version for name, view in shown.items()} == {"default": 1, "lecture": 1}
    assert shown["default"].template.empty_ttl == 60
    file.write_text("[default]\nempty_ttl = 61\n[lecture]\n[more]\n", encoding="utf-8")
    await seed_templates(store, str(file))
    shown = {view.name: view for view in await store.snapshot(templates.list_newest)}
    assert {name: view.version for name, view in shown.items()} == {"default": 1, "lecture": 1, "more": 1}
    assert shown["lecture"].template.participant_limit == 5


async def test_a_bad_file_stops_the_start_and_saves_nothing(engine: AsyncEngine, tmp_path: Path) -> None:
    file = tmp_path / "templates.toml"
    file.write_text("[default]\n[bad]\nempty_ttl = 0\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\[bad\]: empty_ttl"):
        await seed_templates(Store(engine), str(file))
    assert [v.version for v in await Store(engine).snapshot(templates.list_newest)] == [0]


# --- what a template must not say -------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"participant_limit": -2}, "$.participant_limit"),
        ({"publication_limit": 10**9}, "$.publication_limit"),
        ({"participant_limit": 0}, "participant_limit: "),
        ({"empty_ttl": 0}, "empty_ttl: "),
        ({"sfu_only": True, "views": [{}]}, "views: must be empty with sfu_only"),
        ({"views": [{"label": "a"}, {"label": "a"}]}, "views: a is there 2 times"),
        ({"views": [{"audio_codec": "mp3"}]}, "$.views[0].audio_codec"),
        ({"views": [{"video": {"width": 641}}]}, "$.views[0].video.width"),
        (
            {"audio_codecs": ["pcmu"], "views": [{}]},
            "views: common has audio_codec opus, not in audio_codecs",
        ),
        ({"video_codecs": ["h264"], "views": [{}]}, "views: common has video codec vp8, not in video_codecs"),
        ({"audio_codecs": ["opus", "opus"]}, "audio_codecs: opus is there 2 times"),
        ({"roles": []}, "$.roles"),
        ({"roles": [{"role": "a"}]}, "roles: none of them may publish"),
        ({"roles": [{"role": "a", "publish": {"audio": True}}] * 2}, "roles: a is there 2 times"),
        ({"roles": [{"role": "a", "publish": {"smell": True}}]}, "$.roles[0].publish"),
        ({"selector": {"a b": "c"}}, "$.selector"),
        ({"residency": ["eu", "eu"]}, "residency: eu is there 2 times"),
        ({"required_modules": ["portal", "portal"]}, "required_modules: portal is there 2 times"),
        ({"policy": "no policy"}, "$.policy"),
        ({"topology": {"kind": "ring"}}, "$.topology.kind"),
        ({"topology": {"degree_limit": 1}}, "$.topology.degree_limit"),
        ({"topology": {"hubs": ["eu", "eu"]}}, "topology.hubs: eu is there 2 times"),
        ({"unheard": 1}, "unheard"),
    ],
)
def test_the_message_names_the_field(body: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=re.escape(message)):
        msgspec.convert(body, Template)


def test_a_view_without_a_picture_needs_no_video_codec() -> None:
    template = msgspec.convert({"video_codecs": ["h264"], "views": [{"video": None}]}, Template)
    assert template.views[0].video is None


def test_nobody_needs_to_publish_where_nothing_may_be() -> None:
    silent = (RoleRules(role="viewer"),)
    assert Template(publication_limit=0, roles=silent).roles == silent


@given(
    st.builds(
        dict,
        participant_limit=st.integers(-1, 50).filter(bool),
        publication_limit=st.integers(-1, 50),
        sfu_only=st.booleans(),
        audio_codecs=st.lists(st.sampled_from(["opus", "pcmu", "g722"]), unique=True),
        video_codecs=st.lists(st.sampled_from(["vp8", "vp9", "h264"]), unique=True),
        selector=st.dictionaries(st.sampled_from(["tier", "example.org/zone"]), st.text(max_size=9)),
        empty_ttl=st.integers(-1, 99).filter(bool),
    )
)
def test_what_is_stored_reads_as_what_was_saved(body: dict[str, Any]) -> None:
    template = msgspec.convert(body, Template)
    stored = msgspec.to_builtins(template)
    assert set(stored) == set(Template.__struct_fields__)
    assert msgspec.json.decode(msgspec.json.encode(stored), type=Template) == template
