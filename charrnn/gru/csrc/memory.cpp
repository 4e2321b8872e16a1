// Blocks of memory that are kept between calls, and given back to the system when they get old.

#include "memory.h"

#include <pthread.h>

#include <cstdlib>
#include <list>
#include <mutex>

namespace {

constexpr long SMALLEST = 1 << 18;  // bytes; smaller blocks malloc keeps by itself
constexpr long OLD = 256;           // takes after which an unused block is freed; a step has some 30

struct Block {
    void *data;
    long bytes, time;
};

struct Pool {
    std::mutex lock;
    std::list<Block> blocks;
    long time = 0;
};

// Never destroyed: objects of Python give memory back until the very end of a process. A process is
// forked while no thread is inside.
Pool &pool() {
    static Pool *kept = [] {
        static Pool *made = new Pool;
        pthread_atfork([] { made->lock.lock(); }, [] { made->lock.unlock(); },
                       [] { made->lock.unlock(); });
        return made;
    }();
    return *kept;
}

}  // namespace

extern "C" void *memory_take(long bytes) {
    if (bytes >= SMALLEST) {
        Pool &p = pool();
        std::lock_guard<std::mutex> hold(p.lock);
        p.time++;
        void *found = nullptr;
        for (auto i = p.blocks.begin(); i != p.blocks.end();)
            if (!found && i->bytes == bytes) {
                found = i->data;
                i = p.blocks.erase(i);
            } else if (p.time - i->time > OLD) {
                std::free(i->data);
                i = p.blocks.erase(i);
            } else {
                ++i;
            }
        if (found) return found;
    }
    return std::aligned_alloc(64, (bytes + 63) / 64 * 64);
}

extern "C" void memory_give(void *block, long bytes) {
    if (bytes < SMALLEST) return std::free(block);
    Pool &p = pool();
    std::lock_guard<std::mutex> hold(p.lock);
    p.blocks.push_front({block, bytes, p.time});  // the next take gets what the cache has
}

// Frees all blocks that are not in use.
extern "C" void memory_release() {
    Pool &p = pool();
    std::lock_guard<std::mutex> hold(p.lock);
    for (const Block &block : p.blocks) std::free(block.data);
    p.blocks.clear();
}

// The bytes of all blocks that are not in use.
extern "C" long memory_kept() {
    Pool &p = pool();
    std::lock_guard<std::mutex> hold(p.lock);
    long bytes = 0;
    for (const Block &block : p.blocks) bytes += block.bytes;
    return bytes;
}
