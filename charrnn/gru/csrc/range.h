// A range coder with 64-bit arithmetic (Martin 1979), and a stream of characters coded by it.
//
// charrnn/evaluation/range_coder.py is the same in Python, and the definition of both.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

constexpr uint64_t SMALLEST = uint64_t(1) << 56;  // of a range: below it a byte is shifted out

struct Encoder {
    uint64_t low = 0, range = ~uint64_t(0);
    std::vector<uint8_t> bytes;

    // The interval [start, start + size) of [0, total).
    void encode(uint64_t start, uint64_t size, uint64_t total) {
        const uint64_t unit = range / total;
        add(unit * start);
        range = unit * size;
        while (range < SMALLEST) {
            bytes.push_back(low >> 56);
            low <<= 8, range <<= 8;
        }
    }
    void add(uint64_t amount) {
        low += amount;
        if (low < amount)  // a carry, which no byte before the first can receive
            for (size_t i = bytes.size(); ++bytes[--i] == 0;) {}
    }
    // The shortest code of a value in the range, if zeros follow it.
    void finish() {
        add(SMALLEST - 1);
        bytes.push_back(low >> 56);
        low = 0, range = ~uint64_t(0);
        while (!bytes.empty() && !bytes.back()) bytes.pop_back();
    }
};

struct Decoder {
    uint64_t code = 0, range = ~uint64_t(0), unit = 1;
    const uint8_t *next = nullptr, *end = nullptr;

    void start(const uint8_t *begin, const uint8_t *stop) {
        next = begin, end = stop, code = 0, range = ~uint64_t(0);
        for (int i = 0; i < 8; i++) shift();
    }
    void shift() { code = code << 8 | (next < end ? *next++ : 0); }
    // A value of the coded interval; damaged codes give the last one.
    uint64_t value(uint64_t total) {
        unit = range / total;
        return std::min(code / unit, total - 1);
    }
    void remove(uint64_t start, uint64_t size) {
        code -= unit * start;
        range = unit * size;
        while (range < SMALLEST) {
            shift();
            range <<= 8;
        }
    }
};

// Frequencies of the bytes of characters outside the alphabet, each after the byte before it in the
// same character; they adapt to the stream.
struct ByteModel {
    static constexpr uint32_t STEP = 32, LIMIT = 1 << 16;
    uint32_t counts[256][256], totals[256];

    ByteModel() {
        std::fill(&counts[0][0], &counts[0][0] + 256 * 256, 1);
        std::fill(totals, totals + 256, 256);
    }
    void update(int before, int byte) {
        counts[before][byte] += STEP;
        if ((totals[before] += STEP) < LIMIT) return;
        totals[before] = 0;
        for (uint32_t &count : counts[before]) totals[before] += count = (count + 1) / 2;
    }
};

// One of the texts that are coded at once.
struct Stream {
    Encoder encoder;
    Decoder decoder;
    std::unique_ptr<ByteModel> model;  // made when the first character needs it
    uint64_t characters = 0, unknown = 0;

    // One byte; `byte` is ignored by the decoder.
    int code_byte(int before, int byte, bool decode) {
        const uint32_t *counts = model->counts[before];
        uint64_t start = 0;
        if (decode) {
            const uint64_t value = decoder.value(model->totals[before]);
            for (byte = 0; start + counts[byte] <= value; byte++) start += counts[byte];
            decoder.remove(start, counts[byte]);
        } else {
            for (int i = 0; i < byte; i++) start += counts[i];
            encoder.encode(start, counts[byte], model->totals[before]);
        }
        model->update(before, byte);
        return byte;
    }

    // A character outside the alphabet: a byte itself, or UTF-8, of lone surrogates too.
    uint32_t code_unknown(uint32_t point, bool in_bytes, bool decode) {
        if (!model) model.reset(new ByteModel);
        if (in_bytes) return code_byte(0, point, decode);
        int more = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
        static constexpr int marks[] = {0, 0xC0, 0xE0, 0xF0};
        int byte = code_byte(0, marks[more] | point >> 6 * more, decode);
        if (decode) {
            more = byte < 0x80 ? 0 : byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
            static constexpr int masks[] = {0x7F, 0x1F, 0x0F, 0x07};
            point = uint32_t(byte & masks[more]) << 6 * more;
        }
        for (int shift = 6 * (more - 1); shift >= 0; shift -= 6) {
            byte = code_byte(byte, 0x80 | (point >> shift & 0x3F), decode);
            if (decode) point |= uint32_t(byte & 0x3F) << shift;
        }
        return point;
    }

    // The least frequency of index 0, so that many characters outside the alphabet cost little.
    uint64_t least_unknown(uint64_t total) const {
        return (total >> 20) * (((64 * unknown + 1) << 20) / (64 * (characters + 1)));
    }
};

struct Streams {
    const bool in_bytes;
    std::vector<Stream> each;
    Streams(long rows, bool in_bytes) : in_bytes(in_bytes), each(rows) {}
};
