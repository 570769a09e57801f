// All groups' two-component 1-D mixtures by EM, in one launch: the device form of gmm_numpy.py, step for step.
//
// A group is a contiguous segment of `values`. A team of `team_size` blocks takes a group, then the group `num_teams`
// further on, and so forth. Every pass over a group (mean, histogram, 2-means, variances, each EM iteration) ends in sums
// that all blocks of the team need: each block leaves its own, waits for the team, and adds up all blocks' sums in the
// same order, so that every block goes on with the same bits and the result does not depend on timing. Blocks of a team
// wait for each other: all blocks must be resident (a cooperative launch sees to it).
//
// Bytes moved, a pass: the segment, from the second-level cache after the first. Work, an iteration and value: one exp and
// one division in float64; the logarithm of the likelihood is taken once for many values, of a product.
//
// VALUE (float or double) is a macro of the compilation. SHARED may be replaced, to run the same source elsewhere.

#ifndef SHARED
#define SHARED(type, name) __shared__ type name
#endif
#ifndef PAUSE
#define PAUSE()
#endif

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int BINS = 256;  // of the histogram from which the 2-means start is taken
constexpr int LLOYD_STEPS = 64;
constexpr int SUMS = 7;
constexpr int FLUSH = 512;  // factors of at most 2 that a product may take: 2^512 is far below overflow
constexpr double EPSILON = 10 * 2.220446049250313e-16;  // what scikit-learn adds to a component's size
constexpr double LOG_2PI = 1.8378770664093453;

struct Mixture {
    double mean[2], variance[2], weight[2];
};

struct Shared {
    double warp[WARPS][SUMS];
    int bins[BINS];
    Mixture mixture;
    double edge;
};

// The blocks that work on one group, and where they leave their sums.
struct Team {
    int rank, size;
    unsigned* arrived;  // how many blocks have come to a meeting, all meetings together
    double* sums;       // (2, size, SUMS)
    unsigned meetings;
};

struct Segment {
    const VALUE* values;
    long long count;
};

__device__ void meet(Team& team) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(team.arrived, 1u);
        const unsigned all = (team.meetings + 1) * team.size;
        while (*(volatile unsigned*)team.arrived < all) PAUSE();
        __threadfence();
    }
    __syncthreads();
    ++team.meetings;
}

// Adds up (SUM) or takes the least of what all threads of the team hold; every thread gets the result.
template <int COUNT, bool SUM>
__device__ void combine(double (&part)[COUNT], Shared& shared, Team& team) {
    for (int i = 0; i < COUNT; ++i)
        for (int distance = 16; distance > 0; distance /= 2) {
            const double other = __shfl_down_sync(0xffffffffu, part[i], distance);
            part[i] = SUM ? part[i] + other : fmin(part[i], other);
        }
    __syncthreads();  // the last use of shared.warp is over
    if (threadIdx.x % 32 == 0)
        for (int i = 0; i < COUNT; ++i) shared.warp[threadIdx.x / 32][i] = part[i];
    __syncthreads();
    for (int i = 0; i < COUNT; ++i) {
        part[i] = shared.warp[0][i];
        for (int w = 1; w < WARPS; ++w)
            part[i] = SUM ? part[i] + shared.warp[w][i] : fmin(part[i], shared.warp[w][i]);
    }
    if (team.size == 1) return;
    double* const sums = team.sums + (team.meetings & 1) * team.size * SUMS;  // the other half may still be read
    if (threadIdx.x == 0)
        for (int i = 0; i < COUNT; ++i) sums[team.rank * SUMS + i] = part[i];
    meet(team);
    for (int i = 0; i < COUNT; ++i) {
        part[i] = ((volatile double*)sums)[i];
        for (int b = 1; b < team.size; ++b) {
            const double other = ((volatile double*)sums)[b * SUMS + i];
            part[i] = SUM ? part[i] + other : fmin(part[i], other);
        }
    }
}

__device__ long long first_index(const Team& team) { return (long long)team.rank * THREADS + threadIdx.x; }
__device__ long long stride(const Team& team) { return (long long)team.size * THREADS; }

// Between bin j - 1 and bin j. One rounding, as in NumPy.
__device__ double edge_of(double range, int j) { return range * (j / (double)BINS); }

__device__ int bin_of(double offset, double range) {
    int j = (int)(offset / range * BINS);
    j = j < 0 ? 0 : j > BINS - 1 ? BINS - 1 : j;
    while (j > 0 && offset < edge_of(range, j)) --j;
    while (j < BINS - 1 && offset >= edge_of(range, j + 1)) ++j;
    return j;
}

// The edge that splits the histogram best. Rounded like NumPy, operation by operation, so that ties fall the same way.
__device__ double best_edge(const int* bins, double range, double count) {
    double total = 0.0, position = 0.0, below = 0.0, best = -1.0;
    int best_j = 1;
    for (int j = 0; j < BINS; ++j) total += bins[j] * (j + 0.5);
    const double mean = total / count;
    for (int j = 1; j < BINS; ++j) {
        below += bins[j - 1];
        position += bins[j - 1] * (j - 0.5);
        const double deviation = __dadd_rn(position, -__dmul_rn(below, mean));
        const double between = __dmul_rn(deviation, deviation) / (below * (count - below));
        if (between > best) {
            best = between;
            best_j = j;
        }
    }
    return edge_of(range, best_j);
}

// 2-means of the segment: best edge of the histogram, then Lloyd until no value changes sides.
__device__ Mixture two_means(Segment x, double low, double range, Shared& shared, Team& team, double reg_covar) {
    const double count = (double)x.count;
    if (threadIdx.x == 0) shared.edge = best_edge(shared.bins, range, count);
    __syncthreads();
    double sums[3] = {0.0, 0.0, 0.0};  // below the edge: values; values of all; sum of those below
    for (long long i = first_index(team); i < x.count; i += stride(team)) {
        const double offset = x.values[i] - low;
        sums[1] += offset;
        if (offset < shared.edge) {
            sums[0] += 1.0;
            sums[2] += offset;
        }
    }
    combine<3, true>(sums, shared, team);
    const double all = sums[1];
    double below[2] = {sums[0], sums[2]};
    double middle = 0.0;
    for (int step = 0; step < LLOYD_STEPS; ++step) {
        middle = 0.5 * (below[1] / below[0] + (all - below[1]) / (count - below[0]));
        double next[2] = {0.0, 0.0};
        for (long long i = first_index(team); i < x.count; i += stride(team)) {
            const double offset = x.values[i] - low;
            if (offset <= middle) {
                next[0] += 1.0;
                next[1] += offset;
            }
        }
        combine<2, true>(next, shared, team);
        const bool still = next[0] == below[0];
        below[0] = next[0];
        below[1] = next[1];
        if (still) break;
    }
    const double mean[2] = {below[1] / below[0], (all - below[1]) / (count - below[0])};
    double squares[2] = {0.0, 0.0};
    for (long long i = first_index(team); i < x.count; i += stride(team)) {
        const double offset = x.values[i] - low;
        if (offset <= middle)
            squares[0] += (offset - mean[0]) * (offset - mean[0]);
        else
            squares[1] += (offset - mean[1]) * (offset - mean[1]);
    }
    combine<2, true>(squares, shared, team);
    Mixture start;
    for (int c = 0; c < 2; ++c) {
        const double size = c == 0 ? below[0] : count - below[0];
        start.mean[c] = low + mean[c];
        start.variance[c] = squares[c] / size + reg_covar;
        start.weight[c] = size / count;
    }
    return start;
}

// Sums over the segment of r_0, r_1, r_0 d_0, r_1 d_1, r_0 d_0^2, r_1 d_1^2 and log p(x); d_c = x - mean_c.
__device__ void expect(Segment x, const Mixture& mixture, double (&sums)[SUMS], const Team& team) {
    double half[2], constant[2];
    for (int c = 0; c < 2; ++c) {
        half[c] = 0.5 / mixture.variance[c];
        constant[c] = log(mixture.weight[c]) - 0.5 * (log(mixture.variance[c]) + LOG_2PI);
    }
    for (int i = 0; i < SUMS; ++i) sums[i] = 0.0;
    double product = 1.0;
    int factors = 0;
    for (long long i = first_index(team); i < x.count; i += stride(team)) {
        const double d0 = x.values[i] - mixture.mean[0], d1 = x.values[i] - mixture.mean[1];
        const double log0 = constant[0] - half[0] * d0 * d0, log1 = constant[1] - half[1] * d1 * d1;
        const double ratio = exp(-fabs(log0 - log1));  // of the smaller density to the larger
        const double larger = 1.0 / (1.0 + ratio), smaller = ratio * larger;
        const double r0 = log0 >= log1 ? larger : smaller, r1 = log0 >= log1 ? smaller : larger;
        sums[0] += r0;
        sums[1] += r1;
        sums[2] += r0 * d0;
        sums[3] += r1 * d1;
        sums[4] += r0 * d0 * d0;
        sums[5] += r1 * d1 * d1;
        sums[6] += fmax(log0, log1);
        product *= 1.0 + ratio;
        if (++factors == FLUSH) {
            sums[6] += log(product);
            product = 1.0;
            factors = 0;
        }
    }
    sums[6] += log(product);
}

// The M step from moments about the old means.
__device__ void maximise(Mixture& mixture, const double (&sums)[SUMS], double reg_covar) {
    double size[2];
    for (int c = 0; c < 2; ++c) {
        size[c] = sums[c] + EPSILON;
        const double mean = (sums[2 + c] + mixture.mean[c] * sums[c]) / size[c];
        const double shift = mean - mixture.mean[c];
        const double spread = sums[4 + c] - 2.0 * shift * sums[2 + c] + shift * shift * sums[c];
        mixture.mean[c] = mean;
        mixture.variance[c] = spread / size[c] + reg_covar;
    }
    for (int c = 0; c < 2; ++c) mixture.weight[c] = size[c] / (size[0] + size[1]);
}

__device__ bool is_sound(const Mixture& mixture) {
    bool sound = true;
    for (int c = 0; c < 2; ++c)
        sound = sound && isfinite(mixture.mean[c]) && isfinite(mixture.variance[c]) && isfinite(mixture.weight[c]) &&
                mixture.variance[c] > 0.0;
    return sound;
}

// Leaves the bins of the whole segment in shared.bins of every block.
__device__ void histogram(Segment x, double low, double range, Shared& shared, Team& team, int* group_bins) {
    for (int j = threadIdx.x; j < BINS; j += THREADS) shared.bins[j] = 0;
    __syncthreads();
    for (long long i = first_index(team); i < x.count; i += stride(team))
        atomicAdd(&shared.bins[bin_of(x.values[i] - low, range)], 1);
    __syncthreads();
    if (team.size == 1) return;
    for (int j = threadIdx.x; j < BINS; j += THREADS) atomicAdd(&group_bins[j], shared.bins[j]);
    meet(team);
    for (int j = threadIdx.x; j < BINS; j += THREADS) shared.bins[j] = ((volatile int*)group_bins)[j];
    __syncthreads();
}

// Mean and variance decide whether the group can be fitted; low and range are for the start.
__device__ bool look_at(Segment x, long long min_samples, double min_variance, double& low, double& range,
                        Shared& shared, Team& team) {
    if (x.count < min_samples) return false;
    double ends[2] = {x.values[0], -(double)x.values[0]};
    double sum[1] = {0.0};
    for (long long i = first_index(team); i < x.count; i += stride(team)) {
        ends[0] = fmin(ends[0], (double)x.values[i]);
        ends[1] = fmin(ends[1], -(double)x.values[i]);
        sum[0] += x.values[i];
    }
    combine<2, false>(ends, shared, team);
    combine<1, true>(sum, shared, team);
    low = ends[0];
    range = -ends[1] - ends[0];
    const double mean = sum[0] / x.count;
    double squares[1] = {0.0};
    for (long long i = first_index(team); i < x.count; i += stride(team))
        squares[0] += (x.values[i] - mean) * (x.values[i] - mean);
    combine<1, true>(squares, shared, team);
    return squares[0] / x.count >= min_variance;
}

struct Output {
    double *means, *variances, *weights, *lower_bound;  // (G, 2) and (G,)
    long long* n_iter;                                  // (G,)
    unsigned char *converged, *fitted;                  // (G,)
};

__device__ void write(const Output& out, int g, bool fitted, const Mixture& mixture, double bound, int n_iter,
                      bool converged) {
    const int swap = mixture.mean[0] <= mixture.mean[1] ? 0 : 1;
    for (int c = 0; c < 2; ++c) {
        const int to = 2 * g + (c ^ swap);
        out.means[to] = fitted ? mixture.mean[c] : nan("");
        out.variances[to] = fitted ? mixture.variance[c] : nan("");
        out.weights[to] = fitted ? mixture.weight[c] : nan("");
    }
    out.lower_bound[g] = fitted ? bound : nan("");
    out.n_iter[g] = fitted ? n_iter : 0;
    out.converged[g] = fitted && converged;
    out.fitted[g] = fitted;
}

// values: (N,) sorted by group. offsets: (G + 1,) where groups begin. start: means, variances, weights (3, G, 2), or null
// for 2-means. bins: (G, BINS) zeros. arrived: (num_teams,) zeros. sums: (num_teams, 2, team_size, SUMS) of anything.
// bad_start: set to 1 + g where group g's start is no mixture (the group is then not fitted).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
fit(const VALUE* values, const long long* offsets, int num_groups, int team_size, const double* start, int max_iter,
    double tol, double reg_covar, long long min_samples, double min_variance, int* bins, unsigned* arrived, double* sums,
    double* means, double* variances, double* weights, double* lower_bound, long long* n_iter, unsigned char* converged,
    unsigned char* fitted, int* bad_start) {
    SHARED(Shared, shared);
    const Output out = {means, variances, weights, lower_bound, n_iter, converged, fitted};
    const int number = blockIdx.x / team_size, num_teams = gridDim.x / team_size;
    if (number >= num_teams) return;  // a block beyond the last whole team
    double* const team_sums = sums + (long long)number * 2 * team_size * SUMS;
    Team team = {(int)blockIdx.x % team_size, team_size, arrived + number, team_sums, 0};
    for (int g = number; g < num_groups; g += num_teams) {
        const Segment x = {values + offsets[g], offsets[g + 1] - offsets[g]};
        double low = 0.0, range = 0.0;
        Mixture mixture = {};
        bool able = look_at(x, min_samples, min_variance, low, range, shared, team);
        if (able && start) {
            for (int c = 0; c < 2; ++c) {
                mixture.mean[c] = start[2 * g + c];
                mixture.variance[c] = start[2 * (num_groups + g) + c];
                mixture.weight[c] = start[2 * (2 * num_groups + g) + c];
            }
            able = is_sound(mixture) && mixture.weight[0] > 0.0 && mixture.weight[1] > 0.0 &&
                   fabs(mixture.weight[0] + mixture.weight[1] - 1.0) < 1e-6;
            if (!able && threadIdx.x == 0) *bad_start = 1 + g;
        } else if (able) {
            histogram(x, low, range, shared, team, bins + (long long)g * BINS);
            mixture = two_means(x, low, range, shared, team, reg_covar);
        }
        double bound = 0.0;
        int iteration = 0;
        bool settled = false;
        while (able && !settled && iteration < max_iter) {
            ++iteration;
            double moments[SUMS];
            expect(x, mixture, moments, team);
            combine<SUMS, true>(moments, shared, team);
            const double previous = bound;
            bound = moments[6] / x.count;
            settled = iteration > 1 && fabs(bound - previous) < tol;
            maximise(mixture, moments, reg_covar);
        }
        if (team.rank == 0 && threadIdx.x == 0)
            write(out, g, able && is_sound(mixture), mixture, bound, iteration, settled);
    }
}

// Posterior of the component of the smaller mean, (N,). groups: (N,) or null for one group; NaN where out of range.
extern "C" __global__ void posterior(const VALUE* values, const long long* groups, long long count, long long num_groups,
                                     const double* means, const double* variances, const double* weights,
                                     double* probability) {
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        const long long g = groups ? groups[i] : 0;
        if (g < 0 || g >= num_groups) {
            probability[i] = nan("");
            continue;
        }
        double log_density[2];
        for (int c = 0; c < 2; ++c) {
            const double distance = values[i] - means[2 * g + c], variance = variances[2 * g + c];
            log_density[c] = log(weights[2 * g + c]) - 0.5 * log(variance) - 0.5 / variance * (distance * distance);
        }
        const double log_odds = log_density[0] - log_density[1], ratio = exp(-fabs(log_odds));
        probability[i] = (log_odds < 0.0 ? ratio : 1.0) / (1.0 + ratio);
    }
}

// faults: (2,) zeros; [0] becomes 1 where a value is not finite, [1] where a group id is out of range.
extern "C" __global__ void inspect(const VALUE* values, const long long* groups, long long count, long long num_groups,
                                   int* faults) {
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        if (!isfinite((double)values[i])) faults[0] = 1;
        if (groups && (groups[i] < 0 || groups[i] >= num_groups)) faults[1] = 1;
    }
}
