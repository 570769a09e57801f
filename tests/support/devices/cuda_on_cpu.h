// Runs a CUDA kernel's source on a CPU, for tests: every CUDA thread is a fibre of one operating-system thread. Fibres take
// turns: a block waits at __syncthreads and at shuffles for all its threads, and a block that waits for others lets them
// run. A seed shuffles the order in which fibres run, so that a result that depends on timing shows as a difference.

#include <ucontext.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __launch_bounds__(...)
#define __syncthreads() cpu::sync()
#define __threadfence()
#define PAUSE() cpu::pause()
#define SHARED(type, name) type& name = cpu::shared<type>()
#define threadIdx cpu::now->thread
#define blockIdx cpu::now->block
#define blockDim cpu::block_size
#define gridDim cpu::grid_size

using std::exp, std::fabs, std::fmax, std::fmin, std::isfinite, std::log, std::nan;

namespace cpu {

struct Index {
    unsigned x;
};
struct Block {
    std::vector<char> storage;
    std::vector<double> lanes;
    unsigned waiting = 0, generation = 0;
};
struct Fibre {
    ucontext_t context;
    std::vector<char> stack;
    Index thread, block;
    bool done = false;
};

Index block_size, grid_size;
std::vector<Block> blocks;
std::vector<Fibre> fibres;
Fibre* now;
ucontext_t scheduler;
std::function<void()> body;

void pause() { swapcontext(&now->context, &scheduler); }

void sync() {
    Block& block = blocks[now->block.x];
    const unsigned generation = block.generation;
    if (++block.waiting == block_size.x) {
        block.waiting = 0;
        ++block.generation;
    }
    while (block.generation == generation) pause();
}

template <typename T>
T& shared() {
    Block& block = blocks[now->block.x];
    if (block.storage.size() < sizeof(T)) block.storage.assign(sizeof(T), char(0xA5));  // not zero: it is not on a GPU
    return *reinterpret_cast<T*>(block.storage.data());
}

void enter() {
    body();
    now->done = true;
    pause();
}

// Every thread of every block runs `call`; `seed` shuffles who goes first.
void launch(unsigned num_blocks, unsigned num_threads, unsigned seed, std::function<void()> call) {
    grid_size = {num_blocks}, block_size = {num_threads}, body = call;
    blocks = std::vector<Block>(num_blocks);
    for (Block& block : blocks) block.lanes.resize(num_threads);
    fibres = std::vector<Fibre>(num_blocks * num_threads);
    for (unsigned i = 0; i < fibres.size(); ++i) {
        Fibre& fibre = fibres[i];
        fibre.thread = {i % num_threads}, fibre.block = {i / num_threads};
        fibre.stack.resize(64 * 1024);
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.data();
        fibre.context.uc_stack.ss_size = fibre.stack.size();
        fibre.context.uc_link = &scheduler;
        makecontext(&fibre.context, enter, 0);
    }
    std::vector<unsigned> order(fibres.size());
    for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
    srand(seed);
    for (unsigned i = order.size(); seed && i > 1; --i) std::swap(order[i - 1], order[rand() % i]);
    for (bool left = true; left;) {
        left = false;
        for (const unsigned i : order) {
            now = &fibres[i];
            if (now->done) continue;
            left = true;
            swapcontext(&scheduler, &now->context);
        }
    }
}

}  // namespace cpu

namespace cpu {

template <typename... P, size_t... I>
void start(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
    kernel(*(P*)arguments[I]...);
}

// As cuLaunchKernel takes it: `arguments` points to each argument's bytes.
template <typename... P>
void launch_kernel(void (*kernel)(P...), unsigned num_blocks, unsigned num_threads, unsigned seed, void** arguments) {
    launch(num_blocks, num_threads, seed, [=] { start(kernel, arguments, std::index_sequence_for<P...>()); });
}

}  // namespace cpu

inline double __shfl_down_sync(unsigned, double value, int distance) {
    std::vector<double>& lanes = cpu::blocks[cpu::now->block.x].lanes;
    const unsigned thread = cpu::now->thread.x, from = thread + distance;
    lanes[thread] = value;
    cpu::sync();
    const double other = thread % 32 + distance < 32 ? lanes[from] : value;
    cpu::sync();
    return other;
}

inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }

template <typename T>
T atomicAdd(T* place, T value) {
    const T old = *place;
    *place += value;
    return old;
}

template <typename T>
T atomicMax(T* place, T value) {
    const T old = *place;
    if (value > old) *place = value;
    return old;
}
