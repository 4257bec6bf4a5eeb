// FastRandomForest 0.99, fast: the same trees as weka_trees.py, which says what each step means.
//
// FastRandomForest keeps the rows of a node sorted by every feature. Here a node only has its rows; where a feature is
// tried, their ranks (known once for all rows) are put in order with a bitmap, in one pass over the node.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace {

const float MISSING = std::numeric_limits<float>::max();
const double ALMOST = 1e-6;
const double LEAST_GAIN = 1e-2;
const int32_t NULL_HASH = 3392903;
const int32_t LEAF = -1;

struct JavaRandom {
    uint64_t state;

    void set_seed(int64_t seed) { state = (uint64_t(seed) ^ 0x5DEECE66DULL) & ((1ULL << 48) - 1); }

    uint32_t next(int bits) {
        state = (state * 0x5DEECE66DULL + 11) & ((1ULL << 48) - 1);
        return uint32_t(state >> (48 - bits));
    }

    int32_t next_int() { return int32_t(next(32)); }

    uint32_t next_below(uint32_t bound) {
        uint32_t value = next(31);
        if ((bound & (bound - 1)) == 0) return uint32_t((uint64_t(bound) * value) >> 31);
        while (value - value % bound + (bound - 1) >= 1u << 31) value = next(31);
        return value % bound;
    }

    double next_double() {
        const uint64_t high = next(26);
        return double((high << 27) + next(27)) * 0x1.0p-53;
    }
};

double weighted_log2(double x) {
    if (x <= ALMOST) return 0;
    const float narrow = float(x);
    uint32_t bits;
    std::memcpy(&bits, &narrow, 4);
    const int32_t exponent = int32_t((bits >> 23) & 255) - 128;
    bits = (bits & ~(255u << 23)) + (127u << 23);
    float mantissa;
    std::memcpy(&mantissa, &bits, 4);
    const float log2 = ((-1.0f / 3) * mantissa + 2) * mantissa - 2.0f / 3;
    return x * (log2 + float(exponent));
}

// Minus the entropy left after a split with these class weights (left, then right).
double score(const double* weights, int32_t n_classes) {
    double result = 0;
    for (int branch = 0; branch < 2; branch++) {
        double total = 0;
        for (int32_t c = 0; c < n_classes; c++) {
            result += weighted_log2(weights[branch * n_classes + c]);
            total += weights[branch * n_classes + c];
        }
        result -= weighted_log2(total);
    }
    return result;
}

struct Key {
    float value;
    uint32_t row;
};

// The order that FastRandomForest's quicksort leaves; the smaller part first bounds the stack.
void manber_sort(Key* keys, int64_t first, int64_t last) {
    while (first < last) {
        int64_t low = first, high = last;
        const float pivot = keys[(low + high) / 2].value;
        while (low < high) {
            while (low < high && keys[low].value < pivot) low++;
            while (low < high && keys[high].value > pivot) high--;
            if (low < high) std::swap(keys[low++], keys[high--]);
        }
        if (low == high && keys[high].value > pivot) high--;
        if (high - first < last - high - 1) {
            manber_sort(keys, first, high);
            first = high + 1;
        } else {
            manber_sort(keys, high + 1, last);
            last = high;
        }
    }
}

// An array whose memory is first touched by the thread that fills it.
template <class T> struct Unset {
    std::unique_ptr<T[]> all;

    void resize(size_t n) { all.reset(new T[n]); }
    T& operator[](size_t i) { return all[i]; }
    const T& operator[](size_t i) const { return all[i]; }
};

struct Rows {
    const float* values;  // [row][feature], the caller's
    const int32_t* classes;
    int64_t n;
    int32_t n_features, n_classes;
    // [feature][rank]: row and value; [feature][row]: rank
    Unset<uint32_t> order, rank;
    Unset<float> sorted;
    std::vector<int64_t> n_known;  // [feature] values that are not missing
    std::vector<int32_t> hash;
    std::vector<double> whole;  // weighted_log2 of 0, 1, 2 ..
    // [row]: what the text ", row" does to Java's hash of the text before it
    std::vector<uint32_t> text_factor, text_hash;
};

uint32_t hash_of(uint32_t hash, uint32_t number) {
    char digits[12];
    int length = 0;
    do digits[length++] = char('0' + number % 10);
    while (number /= 10);
    while (length) hash = 31 * hash + uint32_t(digits[--length]);
    return hash;
}

struct Scratch {
    std::vector<Key> keys;
    std::vector<uint64_t> items, others;
};

// Sorts by value, if no two are equal: then every way of sorting gives the same order. Else false.
bool radix_sort(Scratch& scratch, int64_t n) {
    const int BITS = 11, PASSES = 3;
    uint32_t starts[PASSES][1 << BITS] = {};
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        std::memcpy(&bits, &scratch.keys[i].value, 4);
        bits ^= bits >> 31 ? ~0u : 1u << 31;  // whole numbers in the order of the values
        scratch.items[i] = uint64_t(bits) << 32 | scratch.keys[i].row;
        for (int pass = 0; pass < PASSES; pass++) starts[pass][bits >> (BITS * pass) & ((1 << BITS) - 1)]++;
    }
    for (auto& of_pass : starts) {
        uint32_t sum = 0;
        for (uint32_t& start : of_pass) {
            const uint32_t count = start;
            start = sum;
            sum += count;
        }
    }
    for (int pass = 0; pass < PASSES; pass++) {
        for (int64_t i = 0; i < n; i++) {
            const uint64_t item = scratch.items[i];
            scratch.others[starts[pass][item >> (32 + BITS * pass) & ((1 << BITS) - 1)]++] = item;
        }
        scratch.items.swap(scratch.others);
    }
    const auto value_of = [](uint64_t item) {
        const uint32_t key = uint32_t(item >> 32), bits = key ^ (key >> 31 ? 1u << 31 : ~0u);
        float value;
        std::memcpy(&value, &bits, 4);
        return value;
    };
    for (int64_t i = 1; i < n; i++)
        if (!(value_of(scratch.items[i - 1]) < value_of(scratch.items[i]))) return false;
    for (int64_t i = 0; i < n; i++) scratch.keys[i] = {value_of(scratch.items[i]), uint32_t(scratch.items[i])};
    return true;
}

void sort_feature(Rows& rows, int32_t feature, const float* values, Scratch& scratch) {
    const int64_t n = rows.n, at = feature * n;
    std::vector<Key>& keys = scratch.keys;
    for (int64_t i = 0; i < n; i++) keys[i] = {values[i] == values[i] ? values[i] : MISSING, uint32_t(i)};
    if (!radix_sort(scratch, n)) manber_sort(keys.data(), 0, n - 1);
    uint32_t hash = hash_of('[', keys[0].row);
    int64_t n_known = 0;
    for (int64_t r = 0; r < n; r++) {
        const uint32_t row = keys[r].row;
        rows.order[at + r] = row;
        rows.rank[at + row] = uint32_t(r);
        rows.sorted[at + r] = keys[r].value;
        n_known += keys[r].value < MISSING;
        if (r) hash = hash * rows.text_factor[row] + rows.text_hash[row];
    }
    rows.n_known[feature] = n_known;
    rows.hash[feature] = int32_t(31 * hash + ']');
}

struct Tree {
    int32_t n_classes;
    std::vector<int32_t> feature, left;
    std::vector<double> split, share, gain;  // share: two per node
    std::vector<double> votes;               // of leaves, in the order in which they were made
    std::vector<int32_t> votes_at;           // per node, the number of the leaf

    int32_t add() {
        feature.push_back(LEAF);
        left.push_back(LEAF);
        split.push_back(0);
        share.insert(share.end(), 2, 0);
        gain.push_back(0);
        votes_at.push_back(LEAF);
        return int32_t(feature.size()) - 1;
    }
};

struct Split {
    int32_t feature;
    double point, score;
    double share[2];
};

class Grower {
  public:
    Grower(const Rows& rows, Tree& tree, JavaRandom random)
        : rows(rows), tree(tree), random(random), k(rows.n_classes), marks((rows.n + 63) / 64), drawn(rows.n),
          window(rows.n_features), counts(2 * k), node_counts(k), trial(2 * k), best_weights(2 * k) {}

    void bootstrap(JavaRandom bag, uint64_t* in_bag) {
        for (int64_t i = 0; i < rows.n; i++) drawn[i] = uint32_t(rows.classes[i]);
        for (int64_t i = 0; i < rows.n; i++) drawn[bag.next_below(uint32_t(rows.n))] += 256;
        for (int64_t i = 0; i < rows.n; i++)
            if (drawn[i] >= 256) {
                members.push_back(uint32_t(i));
                in_bag[i / 64] |= 1ULL << (i % 64);
            }
        ranks.resize(members.size());
    }

    void grow(int32_t max_features, int32_t max_depth) {
        for (int32_t a = 0; a < rows.n_features; a++) window[a] = a;
        weights.assign(k, 0);
        for (uint32_t row : members) weights[drawn[row] & 255] += drawn[row] >> 8;
        todo.push_back({tree.add(), 0, int64_t(members.size()), 0});
        std::vector<double> here(k);
        while (!todo.empty()) {
            const Node node = todo.back();
            todo.pop_back();
            std::copy(weights.end() - k, weights.end(), here.begin());
            weights.resize(weights.size() - k);
            const int64_t n = node.end - node.start;
            Split split{};
            double gain = 0;
            const bool may_ask = n >= 2 && !is_pure(here) && (max_depth == 0 || node.depth < max_depth);
            if (!may_ask || !find_split(node.start, node.end, max_features, split, gain)) {
                tree.votes_at[node.number] = int32_t(tree.votes.size() / k);
                for (double w : here) tree.votes.push_back(n ? w / double(n) : w);
                continue;
            }
            const int64_t middle = partition(node.start, node.end, split);
            const int32_t left = tree.add();
            tree.add();
            tree.feature[node.number] = split.feature;
            tree.left[node.number] = left;
            tree.split[node.number] = split.point;
            tree.share[2 * node.number] = split.share[0];
            tree.share[2 * node.number + 1] = split.share[1];
            tree.gain[node.number] = gain;
            if (middle == node.start)  // the mean of two neighbours was rounded down to the lower one
                for (int32_t i = 0; i < 2 * k; i++) best_weights[i] = here[i % k] / double(n);
            // The left one is grown first: random numbers go in this order.
            todo.push_back({left + 1, middle, node.end, node.depth + 1});
            weights.insert(weights.end(), best_weights.begin() + k, best_weights.end());
            todo.push_back({left, node.start, middle, node.depth + 1});
            weights.insert(weights.end(), best_weights.begin(), best_weights.begin() + k);
        }
    }

  private:
    struct Node {
        int32_t number;
        int64_t start, end;
        int32_t depth;
    };

    static bool is_pure(const std::vector<double>& weights) {
        double total = 0, largest = 0;
        for (double w : weights) {
            total += w;
            largest = std::max(largest, w);
        }
        return total - largest < ALMOST && largest - total < ALMOST;
    }

    bool find_split(int64_t start, int64_t end, int32_t max_features, Split& best, double& gain) {
        std::fill(node_counts.begin(), node_counts.end(), 0);
        for (int64_t i = start; i < end; i++) node_counts[drawn[members[i]] & 255] += drawn[members[i]] >> 8;
        bool found = false, is_sensible = false;
        double prior = 0;
        int32_t n_left = rows.n_features;
        while (n_left > 0 && (max_features-- > 0 || !is_sensible)) {
            const uint32_t chosen = random.next_below(uint32_t(n_left));
            n_left--;
            std::swap(window[chosen], window[n_left]);
            Split split;
            if (!try_feature(window[n_left], start, end, split) || (found && !(split.score > best.score))) continue;
            if (!found) {
                double total = 0;
                for (int32_t c = 0; c < k; c++) {
                    prior -= weighted_log2(trial[c] + trial[k + c]);
                    total += trial[c] + trial[k + c];
                }
                prior += weighted_log2(total);
            }
            found = true;
            best = split;
            best_weights = trial;
            gain = prior + split.score;
            is_sensible |= gain > LEAST_GAIN;
        }
        return is_sensible;
    }

    // Ranks of the members by a feature, rising.
    void sort_ranks(const uint32_t* rank, int64_t start, int64_t end) {
        const int64_t n = end - start;
        uint32_t lowest = ~0u, highest = 0;
        for (int64_t i = 0; i < n; i++) {
            const uint32_t r = rank[members[start + i]];
            ranks[i] = r;
            lowest = std::min(lowest, r);
            highest = std::max(highest, r);
        }
        if (n <= 12) {
            for (int64_t i = 1; i < n; i++) {
                const uint32_t r = ranks[i];
                int64_t j = i;
                for (; j > 0 && ranks[j - 1] > r; j--) ranks[j] = ranks[j - 1];
                ranks[j] = r;
            }
        } else if ((highest - lowest) / 64 > 8 * n) {
            std::sort(ranks.begin(), ranks.begin() + n);
        } else {
            for (int64_t i = 0; i < n; i++) marks[ranks[i] / 64] |= 1ULL << (ranks[i] % 64);
            int64_t i = 0;
            for (uint32_t word = lowest / 64; word <= highest / 64; word++) {
                for (uint64_t bits = marks[word]; bits; bits &= bits - 1)
                    ranks[i++] = word * 64 + uint32_t(__builtin_ctzll(bits));
                marks[word] = 0;
            }
        }
    }

    // The best split by one feature; its class weights are left in `trial`.
    bool try_feature(int32_t feature, int64_t start, int64_t end, Split& split) {
        const int64_t at = feature * rows.n;
        const uint32_t* order = &rows.order[at];
        const float* sorted = &rows.sorted[at];
        const int64_t n = end - start;
        sort_ranks(&rows.rank[at], start, end);
        int64_t n_known = n;
        while (n_known > 0 && ranks[n_known - 1] >= rows.n_known[feature]) n_known--;

        int32_t* left = counts.data();
        int32_t* right = counts.data() + k;
        std::fill(left, right, 0);
        std::copy(node_counts.begin(), node_counts.end(), right);
        for (int64_t i = n_known; i < n; i++) {
            const uint32_t d = drawn[order[ranks[i]]];
            right[d & 255] -= d >> 8;
        }
        int32_t n_left = 0, n_right = 0;
        for (int32_t c = 0; c < k; c++) n_right += right[c];
        const double* whole = rows.whole.data();
        double best = -std::numeric_limits<double>::max();
        int64_t best_at = 0;
        for (int64_t i = 1; i < n_known; i++) {
            const uint32_t d = drawn[order[ranks[i - 1]]];
            const int32_t weight = int32_t(d >> 8);
            left[d & 255] += weight;
            right[d & 255] -= weight;
            n_left += weight;
            n_right -= weight;
            if (!(sorted[ranks[i]] > sorted[ranks[i - 1]])) continue;
            double value = 0;
            for (int32_t c = 0; c < k; c++) value += whole[left[c]];
            value -= whole[n_left];
            for (int32_t c = 0; c < k; c++) value += whole[right[c]];
            value -= whole[n_right];
            if (value > best) {
                best = value;
                best_at = i;
            }
        }
        if (best_at == 0) return false;

        std::fill(trial.begin(), trial.end(), 0);
        for (int64_t i = 0; i < n_known; i++) {
            const uint32_t d = drawn[order[ranks[i]]];
            trial[(i < best_at ? 0 : k) + (d & 255)] += d >> 8;
        }
        double totals[2] = {0, 0};
        for (int32_t i = 0; i < 2 * k; i++) totals[i / k] += trial[i];
        split.share[0] = totals[0] / (totals[0] + totals[1]);
        split.share[1] = totals[1] / (totals[0] + totals[1]);
        for (int64_t i = n_known; i < n; i++) {
            const uint32_t d = drawn[order[ranks[i]]];
            for (int branch = 0; branch < 2; branch++)
                trial[branch * k + (d & 255)] += split.share[branch] * double(d >> 8);
        }
        split.feature = feature;
        const float sum = sorted[ranks[best_at]] + sorted[ranks[best_at - 1]];
        split.point = double(sum) / 2;
        split.score = n_known < n ? score(trial.data(), k) : best;
        return true;
    }

    // Rows that go left to the front; missing ones by chance, in the order of the feature.
    int64_t partition(int64_t start, int64_t end, const Split& split) {
        const uint32_t* rank = &rows.rank[split.feature * rows.n];
        const float* sorted = &rows.sorted[split.feature * rows.n];
        unknown.clear();
        kept.clear();
        int64_t middle = start;
        for (int64_t i = start; i < end; i++) {
            const uint32_t row = members[i], r = rank[row];
            if (r >= rows.n_known[split.feature]) unknown.push_back(r);
            else if (double(sorted[r]) < split.point) members[middle++] = row;
            else kept.push_back(row);
        }
        std::sort(unknown.begin(), unknown.end());
        for (uint32_t r : unknown) {
            const uint32_t row = rows.order[split.feature * rows.n + r];
            if (random.next_double() > split.share[0]) kept.push_back(row);
            else members[middle++] = row;
        }
        std::copy(kept.begin(), kept.end(), members.begin() + middle);
        return middle;
    }

    const Rows& rows;
    Tree& tree;
    JavaRandom random;
    const int32_t k;
    std::vector<uint64_t> marks;
    std::vector<uint32_t> drawn;  // per row: how often it is in the bag * 256 + its class
    std::vector<uint32_t> members, ranks, unknown, kept;
    std::vector<int32_t> window, counts, node_counts;
    std::vector<double> trial, best_weights, weights;
    std::vector<Node> todo;
};

// Adds what the tree votes for a row; missing values go both ways.
void add_votes(const Tree& tree, const float* row, double* votes, std::vector<double>& scratch) {
    int32_t node = 0;
    while (tree.feature[node] != LEAF) {
        const float value = row[tree.feature[node]];
        if (!(value < MISSING)) break;  // missing, as NaN or as the largest number
        node = tree.left[node] + (double(value) < tree.split[node] ? 0 : 1);
    }
    const int32_t k = tree.n_classes;
    if (tree.feature[node] == LEAF) {
        const double* leaf = &tree.votes[int64_t(tree.votes_at[node]) * k];
        for (int32_t c = 0; c < k; c++) votes[c] += leaf[c];
        return;
    }
    // The two branches are summed before their parent's share multiplies them: depth first, with a stack of sums.
    struct Step {
        int32_t node, phase;
    };
    std::vector<Step> stack{{node, 0}};
    scratch.assign(k, 0);
    while (!stack.empty()) {
        Step& top = stack.back();
        const int32_t feature = tree.feature[top.node];
        double* mine = scratch.data() + scratch.size() - k;
        if (feature == LEAF) {
            const double* leaf = &tree.votes[int64_t(tree.votes_at[top.node]) * k];
            std::copy(leaf, leaf + k, mine);
        } else if (row[feature] < MISSING) {
            top.node = tree.left[top.node] + (double(row[feature]) < tree.split[top.node] ? 0 : 1);
            continue;
        } else if (top.phase < 2) {
            const int32_t next = tree.left[top.node] + top.phase++;
            stack.push_back({next, 0});
            scratch.resize(scratch.size() + k, 0);
            continue;
        }
        stack.pop_back();
        if (stack.empty()) break;
        Step& parent = stack.back();
        double* theirs = mine - k;
        const double share = tree.share[2 * int64_t(parent.node) + parent.phase - 1];
        for (int32_t c = 0; c < k; c++) theirs[c] += share * mine[c];
        scratch.resize(scratch.size() - k);
    }
    for (int32_t c = 0; c < k; c++) votes[c] += scratch[c];
}

// The same for rows without missing values: some walk side by side, so that none waits for its own loads.
void add_votes_of_complete(const Tree& tree, const Rows& rows, const std::vector<int64_t>& which, double* votes) {
    const size_t TOGETHER = 8;
    const int32_t k = tree.n_classes;
    for (size_t start = 0; start < which.size(); start += TOGETHER) {
        const size_t n = std::min(TOGETHER, which.size() - start);
        const float* row[TOGETHER];
        int32_t at[TOGETHER];
        for (size_t j = 0; j < TOGETHER; j++) {
            row[j] = rows.values + which[start + std::min(j, n - 1)] * rows.n_features;
            at[j] = 0;
        }
        bool moves = true;
        while (moves) {
            moves = false;
            for (size_t j = 0; j < TOGETHER; j++) {
                const int32_t feature = tree.feature[at[j]];
                const bool asks = feature != LEAF;
                const int32_t right = double(row[j][asks ? feature : 0]) < tree.split[at[j]] ? 0 : 1;
                at[j] = asks ? tree.left[at[j]] + right : at[j];
                moves |= asks;
            }
        }
        for (size_t j = 0; j < n; j++) {
            const double* leaf = &tree.votes[int64_t(tree.votes_at[at[j]]) * k];
            for (int32_t c = 0; c < k; c++) votes[which[start + j] * k + c] += leaf[c];
        }
    }
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// All pointers stay the caller's. A null result or -1 means that there is not enough memory.

EXPORT void* weka_open(const float* values, const int32_t* classes, int64_t n, int32_t n_features, int32_t n_classes) {
    Rows* rows = nullptr;
    try {
        rows = new Rows{values, classes, n, n_features, n_classes, {}, {}, {}, {}, {}, {}, {}, {}};
        const size_t all = size_t(n) * size_t(n_features);
        rows->order.resize(all);
        rows->rank.resize(all);
        rows->sorted.resize(all);
        rows->n_known.resize(n_features);
        rows->hash.resize(n_features);
        rows->whole.resize(n + 1);
        for (int64_t i = 0; i <= n; i++) rows->whole[i] = weighted_log2(double(i));
        rows->text_factor.resize(n);
        rows->text_hash.resize(n);
        for (int64_t i = 0; i < n; i++) {
            rows->text_factor[i] = 31 * 31;
            int64_t rest = i;
            do rows->text_factor[i] *= 31;
            while (rest /= 10);
            rows->text_hash[i] = hash_of(31 * uint32_t(',') + ' ', uint32_t(i));
        }
        return rows;
    } catch (const std::bad_alloc&) {
        delete rows;
        return nullptr;
    }
}

EXPORT void weka_close(void* rows) { delete static_cast<Rows*>(rows); }

EXPORT int32_t weka_sort(void* pointer, int32_t first, int32_t stop) {
    Rows& rows = *static_cast<Rows*>(pointer);
    try {
        const int64_t n = rows.n, n_columns = stop - first;
        Scratch scratch{std::vector<Key>(n), std::vector<uint64_t>(n), std::vector<uint64_t>(n)};
        std::vector<float> columns(n * n_columns);
        for (int64_t i = 0; i < n; i++)  // a row's values lie side by side
            for (int64_t f = 0; f < n_columns; f++) columns[f * n + i] = rows.values[i * rows.n_features + first + f];
        for (int32_t feature = first; feature < stop; feature++)
            sort_feature(rows, feature, &columns[(feature - first) * n], scratch);
        return 0;
    } catch (const std::bad_alloc&) {
        return -1;
    }
}

// For each tree the state of the random numbers before its bag is drawn, and that of its own ones.
EXPORT void weka_seeds(const void* pointer, int64_t seed, int32_t n_trees, uint64_t* bags, uint64_t* own) {
    const Rows& rows = *static_cast<const Rows*>(pointer);
    JavaRandom random;
    random.set_seed(seed);
    for (int32_t t = 0; t < n_trees; t++) {
        bags[t] = random.state;
        for (int64_t i = 0; i < rows.n; i++) random.next_below(uint32_t(rows.n));
        const int64_t tree_seed = random.next_int();
        JavaRandom mine;
        mine.set_seed(tree_seed);
        const int32_t attribute = int32_t(mine.next_below(uint32_t(rows.n_features) + 1));
        mine.set_seed(tree_seed + (attribute < rows.n_features ? rows.hash[attribute] : NULL_HASH));
        own[t] = mine.state;
    }
}

// One tree; in_bag has a bit per row, zero before.
EXPORT void* weka_grow(
    const void* pointer, uint64_t bag, uint64_t own, int32_t max_features, int32_t max_depth, uint64_t* in_bag
) {
    const Rows& rows = *static_cast<const Rows*>(pointer);
    Tree* tree = nullptr;
    try {
        tree = new Tree{rows.n_classes, {}, {}, {}, {}, {}, {}, {}};
        Grower grower(rows, *tree, JavaRandom{own});
        grower.bootstrap(JavaRandom{bag}, in_bag);
        grower.grow(max_features, max_depth);
        return tree;
    } catch (const std::bad_alloc&) {
        delete tree;
        return nullptr;
    }
}

EXPORT int64_t weka_n_nodes(const void* tree) { return int64_t(static_cast<const Tree*>(tree)->feature.size()); }

// Votes of leaves in the order of their node numbers.
EXPORT void weka_copy(
    const void* pointer, int32_t* feature, int32_t* left, double* split, double* left_share, double* gain, double* votes
) {
    const Tree& tree = *static_cast<const Tree*>(pointer);
    const int32_t k = tree.n_classes;
    for (size_t i = 0; i < tree.feature.size(); i++) {
        feature[i] = tree.feature[i];
        left[i] = tree.left[i];
        split[i] = tree.split[i];
        left_share[i] = tree.share[2 * i];
        gain[i] = tree.gain[i];
        if (tree.feature[i] != LEAF) continue;
        const double* leaf = &tree.votes[int64_t(tree.votes_at[i]) * k];
        votes = std::copy(leaf, leaf + k, votes);
    }
}

EXPORT void weka_free(void* tree) { delete static_cast<Tree*>(tree); }

// Sums of votes [row][class], for the rows first..stop, of the trees that had not seen them.
EXPORT int32_t weka_out_of_bag(
    const void* pointer, void* const* trees, int32_t n_trees, const uint64_t* in_bag, int64_t first, int64_t stop,
    double* votes
) {
    const Rows& rows = *static_cast<const Rows*>(pointer);
    const int64_t words = (rows.n + 63) / 64;
    try {
        std::vector<double> scratch;
        std::vector<int64_t> unseen;
        bool is_complete = true;
        for (int64_t known : rows.n_known) is_complete &= known == rows.n;
        for (int32_t t = 0; t < n_trees; t++) {
            const Tree& tree = *static_cast<const Tree*>(trees[t]);
            unseen.clear();
            for (int64_t i = first; i < stop; i++)
                if (!(in_bag[t * words + i / 64] >> (i % 64) & 1)) unseen.push_back(i);
            if (is_complete) {
                add_votes_of_complete(tree, rows, unseen, votes);
                continue;
            }
            for (int64_t i : unseen)
                add_votes(tree, rows.values + i * rows.n_features, votes + i * rows.n_classes, scratch);
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return -1;
    }
}
