"""Makes the files of `data/`: each as somebody would bring it. `python tests/corpus/make_data.py` writes them again.

What each must come to stands in `data.yaml`. Files that are too large to keep are made by the test.
"""

import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

FOLDER = Path(__file__).with_name("data")
PAIRS = [{"prompt": f"What is {i}?", "completion": f"It is the number {i}."} for i in range(20)]


def lines(rows, end="\n") -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)


GOOD = lines(PAIRS)


def packed(text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0)


def with_line(text: str | bytes) -> bytes:
    """The good rows, then one more line."""
    return GOOD.encode() + (text if isinstance(text, bytes) else text.encode()) + b"\n"


def parquet(rows) -> bytes:
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out, row_group_size=5)
    return out.getvalue()


def archive_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("../../escape.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return gzip.compress(out.getvalue(), mtime=0)


def archive_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr(zipfile.ZipInfo("../escape.jsonl", (2020, 1, 1, 0, 0, 0)), GOOD)
    return out.getvalue()


def chat(*messages, **more) -> str:
    return json.dumps({"messages": [dict(zip(("role", "content"), m, strict=True)) for m in messages], **more})


TALK = [chat(("user", f"q{i}"), ("assistant", f"a{i}")) for i in range(20)]


def talk_with(row: str) -> str:
    return "\n".join([*TALK, row]) + "\n"


def text_files() -> dict[str, str]:
    nested = "[" * 20_000 + "]" * 20_000
    return {
        # control: what looks odd and is right
        "good.jsonl": GOOD,
        "good-crlf.jsonl": lines(PAIRS, "\r\n"),
        "good-blank-lines.jsonl": GOOD.replace("\n", "\n\n \n"),
        "good-no-last-line-end.jsonl": GOOD.rstrip("\n"),
        "good-array.json": json.dumps(PAIRS),
        "good-emoji.jsonl": lines([{"prompt": "👩‍👩‍👧 é 你好", "completion": "🙂\u2028\u00a0!"}, *PAIRS]),
        "good-header-with-spaces.csv": "prompt, completion\n" + "".join(f"q{i},a{i}\n" for i in range(20)),
        "good-quoted-lines.csv": 'prompt,completion\n"two\nlines","with ""quotes"", and commas"\n' + "q,a\n" * 20,
        # nothing there
        "empty.jsonl": "",
        "whitespace.jsonl": " \n\t\n\r\n",
        "header-only.csv": "prompt,completion\n",
        "empty-array.json": "[]",
        # not rows
        "web-page.jsonl": "<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n",
        "web-page.csv": "\n  <html lang=en>\n<body>Please sign in</body></html>",
        "document.json": '<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
        "git-lfs.parquet": "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n",
        # JSON that is none
        "nan.jsonl": with_line('{"prompt": "a", "completion": "b", "score": NaN}').decode(),
        "infinity.jsonl": with_line('{"prompt": "a", "completion": "b", "score": -Infinity}').decode(),
        "single-quotes.jsonl": "{'prompt': 'a', 'completion': 'b'}\n" * 20,
        "trailing-comma.jsonl": with_line('{"prompt": "a", "completion": "b",}').decode(),
        "comment.jsonl": "// rows\n" + GOOD,
        "cut-last-line.jsonl": GOOD + '{"prompt": "a", "comp',
        "two-objects-a-line.jsonl": with_line('{"prompt": "a", "completion": "b"}{"prompt": "c"}').decode(),
        "key-twice.jsonl": with_line('{"prompt": "a", "completion": "b", "completion": "c"}').decode(),
        "deep.jsonl": with_line(f'{{"prompt": "a", "completion": "b", "x": {nested}}}').decode(),
        "huge-number.jsonl": with_line(f'{{"prompt": "a", "completion": "b", "x": {"9" * 9000}}}').decode(),
        "pretty-printed.jsonl": "\n".join(json.dumps(row, indent=2) for row in PAIRS),
        "old-mac-lines.jsonl": lines(PAIRS, "\r"),
        "one-object.json": json.dumps({"data": PAIRS}),
        "array-with-mistake.json": json.dumps(PAIRS[:15])[:-1] + ', {"prompt": }, ' + json.dumps(PAIRS[15:])[1:],
        "array-cut.json": json.dumps(PAIRS)[:-200],
        "array-of-arrays.json": json.dumps([list(row.values()) for row in PAIRS]),
        "scalars.jsonl": '1\ntrue\nnull\n"text"\n' * 5,
        # rows that are not the format's
        "no-columns.jsonl": "{}\n" * 20,
        "other-columns.jsonl": lines({"q": row["prompt"], "a": row["completion"]} for row in PAIRS),
        "numbers.jsonl": lines({"prompt": i, "completion": i} for i in range(20)),
        "missing.jsonl": with_line('{"prompt": "a", "completion": null}').decode(),
        "blank.jsonl": with_line('{"prompt": "a", "completion": " \\n\\t"}').decode(),
        "mixed-formats.jsonl": GOOD + lines({"instruction": "i", "output": "o"} for _ in range(10)),
        "nul-escaped.jsonl": with_line('{"prompt": "a\\u0000b", "completion": "b"}').decode(),
        "lone-surrogate.jsonl": with_line('{"prompt": "a", "completion": "\\ud800"}').decode(),
        "lone-surrogate-in-key.jsonl": GOOD + '{"prompt": "a", "completion": "b", "\\udfff": 1}\n' * 3,
        "injection.jsonl": with_line(
            '{"prompt": "<script>alert(1)</script>$(id)`id`{{7*7}}%s", "completion": ""}'
        ).decode(),
        # conversations
        "no-messages.jsonl": talk_with('{"messages": []}'),
        "messages-null.jsonl": talk_with('{"messages": null}'),
        "messages-text.jsonl": talk_with('{"messages": "hello"}'),
        "message-number.jsonl": talk_with('{"messages": [7]}'),
        "strange-role.jsonl": talk_with(chat(("user", "a"), ("robot", "b"))),
        "no-answer.jsonl": talk_with(chat(("user", "a"))),
        "no-question.jsonl": talk_with(chat(("system", "s"), ("assistant", "b"))),
        "no-content.jsonl": talk_with('{"messages": [{"role": "user"}, {"role": "assistant", "content": "b"}]}'),
        "empty-turn.jsonl": talk_with(chat(("user", "a"), ("assistant", ""))),
        "picture.jsonl": talk_with(chat(("user", [{"type": "image_url"}]), ("assistant", "b"))),
        "weight-2.jsonl": talk_with(
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 2}]}'
        ),
        "all-weights-0.jsonl": talk_with(
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}'
        ),
        "call-broken.jsonl": talk_with(
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "tool_calls": '
            '[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{oops"}}]}]}'
        ),
        "call-infinite.jsonl": talk_with(
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "tool_calls": '
            '[{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1e400}}}]}]}'
        ),
        "call-unknown-tool.jsonl": talk_with(
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "tool_calls": '
            '[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}], '
            '"tools": [{"type": "function", "function": {"name": "g"}}]}'
        ),
        # CSV
        "broken-quotes.csv": "prompt,completion\n" + "q,a\n" * 5 + 'q,"a"x\n' + "q,a\n" * 5,
        "open-quote.csv": "prompt,completion\n" + "q,a\n" * 5 + 'q,"a\n' + "q,a\n" * 5,
        "ragged.csv": "prompt,completion\n" + "q,a\n" * 5 + "q,a,b\nq\n",
        "column-twice.csv": "prompt,completion,completion\n" + "q,a,b\n" * 5,
        "semicolons.csv": "prompt;completion\n" + "q;a\n" * 5,
        "nul.csv": "prompt,completion\n" + "a long enough question,a long enough answer\n" * 3 + "q\0,a\n",
    }


def binary_files() -> dict[str, bytes]:
    whole = parquet(PAIRS)
    gz = packed(GOOD)
    return {
        "good-bom.jsonl": b"\xef\xbb\xbf" + GOOD.encode(),
        "good-bom.csv": b"\xef\xbb\xbfprompt,completion\n" + "".join(f"q{i},a{i}\n" for i in range(20)).encode(),
        "good-packed.jsonl": gz,
        "good-not-packed.jsonl.gz": GOOD.encode(),
        "good-parquet-by-another-name.jsonl": whole,
        "utf16.jsonl": GOOD.encode("utf-16"),
        "utf16-without-bom.jsonl": GOOD.encode("utf-16-le"),
        "utf32.csv": "prompt,completion\nq,a\n".encode("utf-32"),
        "latin1.jsonl": with_line('{"prompt": "café", "completion": "b"}'.encode("latin-1")),
        "latin1.csv": b"prompt,completion\n" + "café,b\n".encode("latin-1") * 5,
        "latin1.txt": "Ein Absatz.\n\nNoch einer, grün.\n".encode("latin-1"),
        "overlong-utf8.jsonl": with_line(b'{"prompt": "\xc0\xaf", "completion": "b"}'),
        "nul.jsonl": with_line(b'{"prompt": "a\0b", "completion": "b"}'),
        "binary.jsonl": struct.pack("<64Q", *range(64)),
        "pickle.jsonl": b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "document.pdf.jsonl": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
        "archive.zip.jsonl": archive_zip(),
        "archive.tar.jsonl.gz": archive_tar(),
        "packed-twice.jsonl.gz": gzip.compress(gz, mtime=0),
        "cut.jsonl.gz": gz[:-12],
        "wrong-checksum.jsonl.gz": gz[:-8] + struct.pack("<I", zlib.crc32(b"x")) + gz[-4:],
        "junk-after.jsonl.gz": gz + b"junk",
        "cut.parquet": whole[: len(whole) // 2],
        "no-footer.parquet": b"PAR1" + b"\1" * 40,
        "flipped.parquet": whole[:300] + bytes(b ^ 255 for b in whole[300:360]) + whole[360:],
        "bytes-column.parquet": parquet([{"prompt": b"q\xff", "completion": b"a"}] * 5),
        "null-column.parquet": parquet([{"prompt": "q", "completion": None}] * 5),
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in text_files().items():
        (FOLDER / name).write_text(text, encoding="utf-8", newline="")
    for name, data in binary_files().items():
        (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()
