// Beam search: charrnn/generation/beam.py is the same in Python, and the definition.
//
// B rows, of which the first are the texts of the beam; V vocabulary size.

#include <cmath>
#include <memory>

#include "guard.h"
#include "steps.h"
#include "tile.h"

namespace {

// A text is a path through nodes, from its last character to -1.
struct Node {
    long before;
    int64_t index;
};

struct Candidate {
    double score;
    long position;  // row V + index
};

struct Beam {
    long width, length, ngram, window;
    double alpha;
    std::vector<uint8_t> allowed;            // (V), or empty
    std::vector<std::vector<int64_t>> ends;  // a text ends with the first of them
    std::vector<Node> nodes;
    std::vector<long> last{-1};     // the last node of each text
    std::vector<double> sums{0.0};  // its log probability
    std::vector<Guard> guards;      // of each text, if n-grams must not repeat
    std::vector<int64_t> best;
    double best_score = -INFINITY;
    long steps = 0;  // characters so far
    bool done = false;

    double penalty(long characters) const { return std::pow((5 + characters) / 6.0, alpha); }

    // Whether the text of a node and a character more is at its end.
    bool is_end(long node, int64_t index) const {
        for (const std::vector<int64_t> &end : ends) {
            if (end.empty()) return true;
            long i = end.size() - 1, at = node;
            if (end[i] != index) continue;
            while (i && at >= 0 && nodes[at].index == end[i - 1]) i--, at = nodes[at].before;
            if (!i) return true;
        }
        return false;
    }

    void keep_best(double score, long node, int64_t index) {
        best_score = score;
        best.assign(1, index);
        for (; node >= 0; node = nodes[node].before) best.push_back(nodes[node].index);
        std::reverse(best.begin(), best.end());
    }
};

// Sets scores (texts, V) to the sums with one character more; -infinity for what must not come.
// Returns whether they are finite otherwise.
template <class T>
bool set_scores(Beam &b, const Steps<T> &s, double *scores) {
    constexpr long W = lanes<double>;
    const long size = s.size;
    Buffer<double> padded(size + W);
    for (long row = 0; row < long(b.sums.size()); row++) {
        const T *logits = s.logits + row * size;
        double most = logits[0], sum = 0;
        for (long j = 0; j < size; j++) {
            if (!std::isfinite(logits[j])) return false;
            most = std::max(most, double(logits[j]));
            padded[j] = logits[j];
        }
        for (long j = size; j < size + W; j++) padded[j] = -INFINITY;
        for (long j = 0; j < size; j += W) {
            const V<double> e = exp_negative<double>(load(padded + j) - most);
            for (long k = 0; k < std::min(W, size - j); k++) sum += e[k];
        }
        const double all = std::log(sum);
        const uint8_t *mask = b.allowed.empty() ? nullptr : b.allowed.data();
        if (b.ngram) mask = b.guards[row].allowed(mask);
        for (long j = 0; j < size; j++)
            scores[row * size + j] =
                mask && !mask[j] ? -INFINITY : b.sums[row] + (logits[j] - most - all);
    }
    return true;
}

// The `count` highest finite scores and those equal to the last; of equal ones the first comes first.
std::vector<Candidate> top(const double *scores, long size, long count) {
    std::vector<Candidate> found;
    for (long i = 0; i < size; i++)
        if (scores[i] > -INFINITY) found.push_back({scores[i], i});
    auto before = [](const Candidate &a, const Candidate &b) {
        return a.score > b.score || (a.score == b.score && a.position < b.position);
    };
    if (count < long(found.size())) {
        std::nth_element(found.begin(), found.begin() + (count - 1), found.end(), before);
        const double least = found[count - 1].score;
        auto below = [&](const Candidate &c) { return c.score < least; };
        found.erase(std::remove_if(found.begin(), found.end(), below), found.end());
    }
    std::sort(found.begin(), found.end(), before);
    return found;
}

// The states of the kept texts, which continue those of rows, become the first.
template <class T>
void select_states(Steps<T> &s, const std::vector<long> &rows) {
    for (long l = 0; l < s.count; l++)
        for (long i = 0; i < long(rows.size()); i++)
            std::copy_n(s.state(s.now, l) + rows[i] * s.hidden, s.hidden,
                        s.state(1 - s.now, l) + i * s.hidden);
    s.now = 1 - s.now;
}

// A character more of all texts. Returns whether logits are finite.
template <class T>
bool advance(Beam &b, Steps<T> &s, int threads) {
    const long size = s.size, n = ++b.steps;
    std::vector<double> scores(b.sums.size() * size);
    if (!set_scores(b, s, scores.data())) return false;
    const double penalty = b.penalty(n);
    std::vector<long> rows;
    std::vector<double> sums;
    std::vector<Node> kept;
    // Enough candidates that `width` of those that have not ended are among them.
    for (const Candidate &c : top(scores.data(), scores.size(), b.width * (1 + b.ends.size()))) {
        const long row = c.position / size, index = c.position % size;
        if (n == b.length || b.is_end(b.last[row], index)) {
            if (c.score / penalty > b.best_score) b.keep_best(c.score / penalty, b.last[row], index);
        } else if (long(rows.size()) < b.width) {
            rows.push_back(row), sums.push_back(c.score), kept.push_back({b.last[row], index});
        }
    }
    // A continuation is no likelier than its beginning, and the longest has the mildest penalty.
    if (rows.empty() || b.best_score >= sums[0] / b.penalty(b.length)) {
        b.done = true;
        return true;
    }
    std::vector<Guard> guards;
    b.last.clear();
    for (long i = 0; i < long(rows.size()); i++) {
        if (b.ngram) guards.push_back(b.guards[rows[i]]), guards.back().add(kept[i].index);
        s.index[i] = kept[i].index;
        b.last.push_back(b.nodes.size());
        b.nodes.push_back(kept[i]);
    }
    b.guards.swap(guards), b.sums.swap(sums);
    select_states(s, rows);
    const long count = rows.size();
    threads = std::min<long>(s.threads(count, threads), count);
    parallel_for(threads, threads, [&](long i) {
        s.step(count * i / threads, count * (i + 1) / threads, s.now);
    });
    s.now = 1 - s.now;
    return true;
}

}  // namespace

// allowed (V), recent (seen) and ends may be null; ends are `count` texts of these sizes, one after
// the other. ngram, window: as in sampler.cpp.
extern "C" int beam_open(void **beam, const uint8_t *allowed, const int64_t *recent,
                         const int64_t *ends, const int64_t *sizes, long size, long seen, long count,
                         long ngram, long window, long width, long length, double alpha) try {
    std::unique_ptr<Beam> made(new Beam{width, length, ngram, window, alpha, {}, {}, {}});
    if (allowed) made->allowed.assign(allowed, allowed + size);
    if (ngram) made->guards.emplace_back(recent, seen, ngram, window, size);
    for (long i = 0; i < count; ends += sizes[i++]) made->ends.emplace_back(ends, ends + sizes[i]);
    *beam = made.release();
    return DONE;
} catch (const std::bad_alloc &) {
    return NO_MEMORY;
}

// Up to `steps` characters more; sets *size to the length of the best text once it is found.
#define EXPORT(T, suffix)                                                                         \
    extern "C" int beam_run_##suffix(T *logits, void *sampler, void *beam, int64_t *size,         \
                                     long steps, int threads) try {                               \
        Beam &b = *static_cast<Beam *>(beam);                                                     \
        Steps<T> &s = *static_cast<Steps<T> *>(sampler);                                          \
        s.logits = logits;                                                                        \
        for (long i = 0; i < steps && !b.done; i++)                                               \
            if (!advance(b, s, threads)) return NOT_FINITE;                                       \
        if (b.done) *size = b.best.size();                                                        \
        return DONE;                                                                              \
    } catch (const std::bad_alloc &) {                                                            \
        return NO_MEMORY;                                                                         \
    }

EXPORT(float, f32)
EXPORT(double, f64)

// Takes the best text, and ends the search.
extern "C" void beam_close(void *beam, int64_t *text) {
    std::unique_ptr<Beam> b(static_cast<Beam *>(beam));
    if (text) std::copy(b->best.begin(), b->best.end(), text);
}
