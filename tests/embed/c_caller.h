/* Draws two samples of seed 21, in C. Returns 1, or 0 and a message of at most 1020 bytes. */
#ifndef FLUXION_TESTS_EMBED_C_CALLER_H
#define FLUXION_TESTS_EMBED_C_CALLER_H

#include <stddef.h>

#ifdef __cplusplus
extern "C"
#endif
    int
    draw_in_c(const void* bytes, size_t size, float* samples, size_t capacity, char* message);

#endif
