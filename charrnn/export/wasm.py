"""A WebAssembly module of one function, assembled here: the product of a matrix with a vector.

WebAssembly Core Specification 2.0, chapter 5: the binary format, and the instructions on vectors.
"""

I32, V128, EMPTY = 0x7F, 0x7B, 0x40
"""Types of values, and that of a block without a result."""
LOOP, END, BR_IF = b"\x03", b"\x0b", b"\x0d"
ADD, LESS = b"\x6a", b"\x49"
"""i32.add and i32.lt_u."""


def leb(value: int) -> bytes:
    """Return a whole number, at least 0, as LEB128."""
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def vector(parts: list[bytes]) -> bytes:
    """Return the number of parts, and the parts."""
    return leb(len(parts)) + b"".join(parts)


def sized(content: bytes) -> bytes:
    """Return the size of a content, and the content."""
    return leb(len(content)) + content


def simd(opcode: int, immediate: bytes = b"") -> bytes:
    """Return an instruction on vectors."""
    return b"\xfd" + leb(opcode) + immediate


def get(local: int) -> bytes:
    """Return the instruction that pushes a local variable."""
    return b"\x20" + leb(local)


def put(local: int) -> bytes:
    """Return the instruction that pops into a local variable."""
    return b"\x21" + leb(local)


def const(value: int) -> bytes:
    """Return the instruction that pushes a small whole number, 0 to 63."""
    return b"\x41" + leb(value)


LOAD, STORE = simd(0x00, leb(4) + leb(0)), simd(0x0B, leb(4) + leb(0))
"""v128.load and v128.store, aligned to 16 bytes."""
ZERO = simd(0x0C, bytes(16))
ADD4, MUL4 = simd(0xE4), simd(0xE6)
"""f32x4.add and f32x4.mul."""


def shuffle(*lanes: int) -> bytes:
    """Return the instruction that picks four of the eight float32 of two vectors."""
    return simd(0x0D, bytes(4 * lane + byte for lane in lanes for byte in range(4)))


def matrix_vector_module() -> bytes:
    """Return a module that imports ``env.memory`` and exports ``multiply(w, x, out, end, row)``.

    It sets the float32 at ``out`` to the products of the rows of a matrix with the vector at ``x``.
    The matrix reaches from ``w`` to ``end``, a row has ``row`` bytes. The number of rows is a
    multiple of 4, their length one of 16 bytes, and all addresses too. Four rows are summed at
    once, each in four parts.
    """
    w, x, out, end, row, k, *pointers = range(9)  # w is also the first of four rows
    rows = [w, *pointers]
    factor, *sums = range(9, 14)
    code = LOOP + bytes([EMPTY])
    for before, pointer in zip(rows, pointers):
        code += get(before) + get(row) + ADD + put(pointer)
    for each in sums:
        code += ZERO + put(each)
    code += const(0) + put(k)
    code += LOOP + bytes([EMPTY])
    code += get(x) + get(k) + ADD + LOAD + put(factor)
    for each, pointer in zip(sums, rows):
        code += get(each) + get(pointer) + get(k) + ADD + LOAD + get(factor) + MUL4 + ADD4
        code += put(each)
    code += get(k) + const(16) + ADD + put(k)
    code += get(k) + get(row) + LESS + BR_IF + leb(0) + END
    # Four vectors to the vector of their sums.
    for first, second in (sums[:2], sums[2:]):
        code += get(first) + get(second) + shuffle(0, 4, 1, 5)
        code += get(first) + get(second) + shuffle(2, 6, 3, 7) + ADD4 + put(first)
    code += get(out) + get(sums[0]) + get(sums[2]) + shuffle(0, 1, 4, 5)
    code += get(sums[0]) + get(sums[2]) + shuffle(2, 3, 6, 7) + ADD4 + STORE
    code += get(out) + const(16) + ADD + put(out)
    code += get(pointers[-1]) + get(row) + ADD + put(w)
    code += get(w) + get(end) + LESS + BR_IF + leb(0) + END + END
    local_types = vector([leb(4) + bytes([I32]), leb(5) + bytes([V128])])
    name = sized(b"env") + sized(b"memory")
    sections = {
        1: vector([b"\x60" + vector([bytes([I32])] * 5) + vector([])]),  # the function's type
        2: vector([name + b"\x02\x00" + leb(1)]),  # a memory of at least one page
        3: vector([leb(0)]),
        7: vector([sized(b"multiply") + b"\x00" + leb(0)]),
        10: vector([sized(local_types + code)]),
    }
    return b"\0asm\x01\0\0\0" + b"".join(
        bytes([number]) + sized(content) for number, content in sections.items()
    )
