// The kernels of gmm_em.cu as a library for ctypes; VALUE is a macro of the compilation.
#include "cuda_on_cpu.h"

#include <cstring>

#include "gmm_em.cu"

extern "C" int launch(const char* name, unsigned num_blocks, unsigned num_threads, unsigned seed, void** arguments) {
    if (!strcmp(name, "fit")) return cpu::launch_kernel(fit, num_blocks, num_threads, seed, arguments), 0;
    if (!strcmp(name, "posterior")) return cpu::launch_kernel(posterior, num_blocks, num_threads, seed, arguments), 0;
    if (!strcmp(name, "inspect")) return cpu::launch_kernel(inspect, num_blocks, num_threads, seed, arguments), 0;
    return 1;
}
