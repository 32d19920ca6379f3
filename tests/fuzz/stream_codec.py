"""Coverage-guided fuzzing of the MRD stream's messages with atheris; README.md beside it says how to run it."""

import sys

import atheris

with atheris.instrument_imports():
    import numpy as np

    from mrf.core.arrays import Array
    from mrf.core.errors import FileError
    from mrf.io.mrd_header import header_elements
    from mrf.server.codec import Close, HeaderXml, Limits, ProtocolError, Waveform, message_bytes, read_message

LIMITS = Limits(text=1 << 16, acquisition=1 << 20, image=1 << 20)


def one_input(stream: bytes) -> None:
    """Read messages until the stream ends or is refused; what was read is written and read again."""
    place = 0

    def read(size: int) -> Array:
        nonlocal place
        if size > len(stream) - place:
            raise ProtocolError("the stream ended within a message")
        place += size
        return np.frombuffer(stream, np.uint8, size, place - size)

    while len(stream) - place >= 2:
        try:
            message = read_message(int.from_bytes(read(2).tobytes(), "little"), read, LIMITS)
        except ProtocolError:
            return
        if isinstance(message, HeaderXml):
            try:
                header_elements("stream", message.xml)
            except FileError:
                continue
        if not isinstance(message, Close | Waveform):
            assert sum(len(piece) for piece in message_bytes(message)) > 2


def main() -> None:
    """Fuzz until stopped, or as libFuzzer's options say."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
