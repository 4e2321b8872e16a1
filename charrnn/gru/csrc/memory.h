// Memory that calls use and give back: large blocks are kept, because fresh pages cost a fault each,
// which was up to a fifth of a training step.
#pragma once

#include <new>

// A block of at least so many bytes, aligned to 64; its content is undefined. Null without memory.
extern "C" void *memory_take(long bytes);
// Takes a block back, of the very size with which it was taken.
extern "C" void memory_give(void *block, long bytes);

// Aligned memory of one call; its content is undefined.
template <class T>
struct Buffer {
    long bytes;
    T *data;
    explicit Buffer(long size)
        : bytes((size * sizeof(T) + 127) / 64 * 64), data(static_cast<T *>(memory_take(bytes))) {
        if (!data) throw std::bad_alloc();
    }
    ~Buffer() { memory_give(data, bytes); }
    Buffer(const Buffer &) = delete;
    operator T *() const { return data; }
};
