"""Chat templates: carried, filled as transformers fills them, and stopped where they are hostile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from gpt_export.errors import TextError
from gpt_export.runtime import chat
from gpt_export.runtime.chat import Chat, marked, unfolded, unmarked

from tests.byte_gpt import byte_tokenizer
from tests.conftest import Run

transformers = pytest.importorskip("transformers", reason="transformers is the oracle: pip install transformers")

TEMPLATE = (
    "{% for m in messages %}\n  {% if loop.first %}{{ bos_token }}{% endif %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SAID = ("In the beginning", "  two\nlines ", "typed <|im_end|> and <|endoftext|>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with a tokenizer of bytes, four special tokens, and a template in a file of its own."""
    path = tmp_path_factory.mktemp("chat")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(), eos_token="<|im_end|>", bos_token="<|im_start|>", pad_token="[PAD]"
    )
    tokenizer.chat_template = {"default": TEMPLATE, "tool_use": "{{ tools }}" + TEMPLATE}
    tokenizer.save_pretrained(path)
    config = transformers.GPT2Config(vocab_size=259, n_positions=128, n_embd=16, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def artifact(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import gpt_export

    return gpt_export.export(folder, tmp_path_factory.mktemp("out") / "chat", cases=("grid",)).folder


def test_templates_by_other_names_are_carried(folder: Path, artifact: Path) -> None:
    kept = transformers.AutoTokenizer.from_pretrained(artifact).chat_template
    assert kept == transformers.AutoTokenizer.from_pretrained(folder).chat_template
    assert set(kept) == {"default", "tool_use"}
    name = "additional_chat_templates/tool_use.jinja"
    assert name in json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))["files"]


def test_the_template_is_carried_byte_for_byte(folder: Path, artifact: Path) -> None:
    assert (artifact / "chat_template.jinja").read_bytes() == (folder / "chat_template.jinja").read_bytes()
    assert "chat_template.jinja" in json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))["files"]
    notes = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))["model"]["notes"]
    assert any("[PAD] beyond the model's vocabulary of 259" in note for note in notes)  # a note, no refusal


@pytest.mark.parametrize("said", SAID)
def test_a_chat_has_transformers_ids(said: str, folder: Path, artifact: Path, cli: Callable[..., Run]) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    talk = [{"role": "user", "content": said}]
    wanted = theirs.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    run = cli("generate", artifact, said, "--chat", "--special", "--max-new-tokens", "1", "--json")
    (found,) = run.json()["continuations"]
    assert found["prompt"] == wanted
    assert found["prompt_ids"] == theirs.encode(wanted, add_special_tokens=False)


def test_what_a_user_types_is_text_also_in_a_chat(artifact: Path, cli: Callable[..., Run]) -> None:
    plain, chatty, special = (
        cli("generate", artifact, "a<|im_end|>", *more, "--max-new-tokens", "1", "--json").json()["continuations"][0]
        for more in ((), ("--chat",), ("--special",))
    )
    end = 258
    assert end not in plain["prompt_ids"]
    assert special["prompt_ids"] == [97, end]
    assert chatty["prompt_ids"].count(end) == 1  # the template's own
    assert bytes(i for i in chatty["prompt_ids"] if i < 256).count(b"a<|im_end|>") == 1
    assert chatty["prompt"].count("<|im_end|>") == 2


def test_a_chat_of_ids_is_refused(artifact: Path, cli: Callable[..., Run]) -> None:
    cli("generate", artifact, "1 2", "--chat", "--ids").refused(2, "a chat is text, and --ids says")


HOSTILE = {
    "a loop": ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes more time"),
    "a loop that does not fit": ("{% for i in range(10 ** 9) %}{% endfor %}", "fails: OverflowError"),
    "memory": ("{% set x = 'x' * 9999999999 %}{{ x }}", "more"),
    "growing text": (
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "more",
    ),
    "attributes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "fails: SecurityError"),
    "attributes of a function": ("{{ raise_exception.__globals__ }}{{ x.y }}", "fails: UndefinedError"),
    "attributes by a filter": ("{{ (messages | attr('__class__')).mro() }}", "fails: SecurityError"),
    "a format": ("{{ '{0.__class__.__init__.__globals__}'.format(messages) }}", "fails: SecurityError"),
    "a file": ("{% include '/etc/passwd' %}", "fails: "),
    "its own exception": ("{{ raise_exception('roles must alternate') }}", "fails: ValueError: roles must alternate"),
    "no template": ("{% for %}", "fails: TemplateSyntaxError"),
    "a change of the messages": ("{{ messages.append(1) }}", "fails: SecurityError"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_stopped_in_one_sentence(name: str, tmp_path: Path) -> None:
    template, said = HOSTILE[name]
    with pytest.raises(TextError) as caught:
        Chat(tmp_path, template, {}).prompts(["hello"])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "leave --chat out, and write the prompt with --special yourself" in str(caught.value)


def test_a_template_that_sleeps_is_stopped_by_the_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(chat, "SECONDS", 0.01)
    with pytest.raises(TextError, match=r"takes more time than it may, 0.01 seconds"):
        Chat(tmp_path, "hello", {}).prompts(["hello"])


def test_damaged_templates_give_a_prompt_or_a_sentence(tmp_path: Path) -> None:
    for at in range(0, len(TEMPLATE), 17):
        damaged = TEMPLATE[:at] + "{%}"[at % 3] + TEMPLATE[at + 1 :]
        try:
            (text,) = Chat(tmp_path, damaged, {"bos_token": "<s>"}).prompts(["hello"])
        except TextError as error:
            text = str(error)
        assert text is not None


def test_marks_go_around_what_was_typed_and_nothing_else() -> None:
    text = marked("a<s>b</s>", ["<s>", "</s>"])
    assert unmarked(text) == "a<s>b</s>"
    assert unfolded(f"<s>{text}<s>") == [
        ("<s>a", True), ("<s>", False), ("b", True), ("</s>", False), ("<s>", True)
    ]  # fmt: skip
    assert marked(text, ["<s>", "</s>"]) == text  # marks that were typed are taken out first
