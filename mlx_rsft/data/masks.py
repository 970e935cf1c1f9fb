"""Which part of what a chat template writes is a reply, and is it the row's reply.

A turn is learned as the model will meet it: what the template writes when asked for a
reply to the turns before must be the beginning of what it writes when the reply is
there. From where the first ends to the end-of-turn token is what the model has to
write. Everything else is checked against the row: nothing that the row says may have
been dropped, and the reply must be the row's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mlx_rsft.data import presence, thinking
from mlx_rsft.data.conversation import Conversation, Message
from mlx_rsft.data.templates import Template, Written
from mlx_rsft.data.thinking import OPEN, Arguments, reasoning
from mlx_rsft.errors import DataError


@dataclass(frozen=True, slots=True)
class Turn:
    """A conversation up to a reply, as text.

    Attributes:
        place: Which message the reply is, counted from 0.
        start: Where what the model writes begins.
        end: Where it ends, its end-of-turn token included.
    """

    place: int
    text: str
    start: int
    end: int


def turns(
    conversation: Conversation,
    places: Sequence[int],
    template: Template,
    ends: Sequence[str],
) -> list[Turn]:
    """The replies at these places, each behind all that comes before it.

    Args:
        conversation: The row.
        places: Which messages, in order; all from the assistant.
        template: Of the model.
        ends: The model's end-of-turn tokens, as text.

    Raises:
        DataError: If the template refuses the conversation, drops or changes some of
            it, or does not end the reply.
    """
    return [_turn(conversation, place, template, ends) for place in places]


def together(found: Sequence[Turn]) -> list[list[Turn]]:
    """Turns in groups that fit one text, because later turns only add to earlier ones.

    A template that rewrites what came before, such as one that takes the thinking out
    of all but the last reply, gets a group per reply.
    """
    groups: list[list[Turn]] = []
    for turn in found:
        if groups and turn.text.startswith(groups[-1][-1].text[: groups[-1][-1].end]):
            groups[-1].append(turn)
        else:
            groups.append([turn])
    return groups


def _turn(
    row: Conversation, place: int, template: Template, ends: Sequence[str]
) -> Turn:
    calls = any("tool_calls" in m.extra for m in row.messages[: place + 1])
    try:
        return _turn_with(Arguments.OBJECTS, row, place, template, ends)
    except DataError as problem:
        # Some templates want a call's arguments as an object, some as a JSON text, and
        # which it is shows only in what they write.
        if not calls:
            raise
        try:
            return _turn_with(Arguments.STRINGS, row, place, template, ends)
        except DataError as other:
            raise (other if isinstance(problem, _Refused) else problem) from None


class _Refused(DataError):
    """The template raised an error; the others are our findings in what it wrote."""


def _turn_with(
    form: Arguments,
    row: Conversation,
    place: int,
    template: Template,
    ends: Sequence[str],
) -> Turn:
    message = row.messages[place]
    thought, said = reasoning(message)
    asked, answered = _written(form, row, place, template)
    if thought and said and template.writes_thinking:
        answered = thinking.put_back(asked, answered, message)
    if not answered.text.startswith(asked):
        answered = _behind(asked, answered, row, place)
    _check_nothing_dropped(asked, row, place)
    reply = answered.text[len(asked) :]
    length, end = _end_of_turn(reply, ends, row)
    _check_reply(reply[:length], message, ends, row)
    start = _marked(answered, len(asked), len(asked) + length, row)
    return Turn(place, answered.text, start, len(asked) + length + len(end))


def _written(
    form: Arguments, row: Conversation, place: int, template: Template
) -> tuple[str, Written]:
    """What the template writes before the reply, asked for it, and with it."""
    from jinja2 import TemplateError

    messages = [
        thinking.as_template(message, form, template, learned=number == place)
        for number, message in enumerate(row.messages[: place + 1])
    ]
    thinks = bool(reasoning(row.messages[place])[0])
    try:
        asked = template.write(messages[:-1], row.tools, reply=True, thinking=thinks)
        return asked.text, template.write(
            messages, row.tools, reply=False, thinking=thinks
        )
    except (
        TemplateError, LookupError, TypeError, AttributeError, ValueError
    ) as problem:  # fmt: skip
        said = str(problem).rstrip(".")
        raise _Refused(
            f"The model's chat template refuses the row: {said}.",
            where=row.where,
            hint="Most templates want user and assistant turns to alternate.",
        ) from None


def _behind(asked: str, answered: Written, row: Conversation, place: int) -> Written:
    """The reply behind what asks for it, where the template rewrites what is further up.

    Some put the system message or the tools into whichever user turn is the last word.
    The turn just before the reply, and all that follows it, must be the same in both.
    """
    before = row.messages[place - 1].content.strip() if place else ""
    near = asked[asked.rfind(before) :] if before and before in asked else asked
    found = answered.text.rfind(near)
    if found >= 0:
        shift = len(asked) - found - len(near)
        text = asked + answered.text[found + len(near) :]
        marks = answered.marks and tuple(
            (begin + shift, end + shift) for begin, end in answered.marks
        )
        return Written(text, marks)
    if asked.rstrip().endswith(OPEN):
        raise DataError(
            "The model's chat template opens every reply with thinking, and a reply of "
            "the row has none.",
            where=row.where,
            hint="Give each reply its reasoning_content, or another --template.",
        )
    raise DataError(
        "The model's chat template begins a reply otherwise than it asks for one, so "
        "the row cannot be trained as it will be used.",
        where=row.where,
        hint="Name another template with --template.",
    )


def _check_nothing_dropped(asked: str, row: Conversation, place: int) -> None:
    for number, message in enumerate(row.messages[:place], start=1):
        if message.role == "assistant":  # may be shortened, and is so in use
            if name := presence.missing_call(asked, _calls(message)):
                _refuse_dropped(f"the call of {name!r} in message {number}", row)
        elif not presence.says(asked, message.content):
            _refuse_dropped(f"message {number}, from the {message.role},", row)
    if name := presence.missing_tool(asked, row.tools):
        _refuse_dropped(f"the tool {name!r}", row)


def _calls(message: Message) -> Sequence[Mapping[str, Any]]:
    return message.extra.get("tool_calls", ())


def _refuse_dropped(what: str, row: Conversation) -> NoReturn:
    raise DataError(
        f"The model's chat template drops or changes {what} of the row.",
        where=row.where,
        hint="Take it out of the row, or name another template with --template.",
    )


def _end_of_turn(reply: str, ends: Sequence[str], row: Conversation) -> tuple[int, str]:
    """Where the first end-of-turn token begins, and which it is."""
    found = [(reply.find(end), end) for end in ends if end in reply]
    if not found:
        raise DataError(
            "The model's chat template ends a reply without an end-of-turn token, so "
            "the model would never learn to stop.",
            where=row.where,
            hint="Name the token under eos_token_id in generation_config.json.",
        )
    return min(found)


def _check_reply(
    written: str, message: Message, ends: Sequence[str], row: Conversation
) -> None:
    thought, said = reasoning(message)
    if any(end in message.content for end in ends):
        raise DataError(
            "A reply has an end-of-turn token in its text, so the model would learn to "
            "stop there.",
            where=row.where,
            hint="Write one message per turn, without the template's own tokens.",
        )
    if said not in written:
        raise DataError(
            "The model's chat template changes the text of an assistant reply.",
            where=row.where,
        )
    if thought not in written:
        _refuse_dropped("the reasoning of a reply", row)
    if name := presence.missing_call(written, _calls(message)):
        _refuse_dropped(f"the call of {name!r}", row)


def _marked(answered: Written, start: int, end: int, row: Conversation) -> int:
    """Where a reply begins, by the template's own marks where it has some.

    A mark may take in the header that the model does not write, or leave out the
    end-of-turn token; what is written after the header and up to that token counts.
    """
    if answered.marks is None:
        return start
    inside = [
        (max(begin, start), min(stop, end))
        for begin, stop in answered.marks
        if begin < end and stop > start
    ]
    gaps = any(later[0] > former[1] for former, later in itertools.pairwise(inside))
    if not inside or inside[-1][1] < end or gaps:
        raise DataError(
            "The model's chat template does not mark this reply as one piece.",
            where=row.where,
        )
    return inside[0][0]
