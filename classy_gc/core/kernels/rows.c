/* Gradient centralization and the update in one pass over memory: a row that has just been summed
 * is still in the cache when it is updated. update.h has the maths; here are the types of element,
 * the scalars of a step, and the threads.
 *
 * Plain C, called with addresses: no header of Python or torch. Each row is worked on by one
 * thread in one order, and nothing is contracted (-ffp-contract=off), so that the results are the
 * same bits for every number of threads.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define PRAGMA(x) _Pragma(#x)
#ifdef _OPENMP
#define SIMD(clauses) PRAGMA(omp simd clauses)
#define PARALLEL(clauses) PRAGMA(omp parallel clauses)
#define DYNAMIC PRAGMA(omp for schedule(dynamic))
#define THREAD omp_get_thread_num()
#else
#define SIMD(clauses)
#define PARALLEL(clauses)
#define DYNAMIC
#define THREAD 0
#endif

#define INLINE static inline __attribute__((always_inline))
#ifdef TARGETS
#define CLONES __attribute__((target_clones(TARGETS)))
#else
#define CLONES
#endif

#define STATES 3
#define TASK (1 << 15) /* elements that a thread takes at once, if a row is not longer */

enum { SGD, ADAM, RMSPROP };
enum {
    MOMENTUM = 1,    /* SGD, RMSprop: there is a momentum buffer */
    NESTEROV = 2,    /* SGD */
    AMSGRAD = 4,     /* Adam */
    UNRECTIFIED = 8, /* RAdam */
    WAITS = 16,      /* RAdam: the moments advance, the weight does not */
    CENTERED = 32,   /* RMSprop */
    BEFORE = 64,     /* GC acts on the gradient */
    AFTER = 128,     /* GC acts on the update */
    DECOUPLED = 256, /* Adam: weight decay is part of the update, if it is not 0 */
};

/* What a parameter group says; rows.py has the same fields in the same order. */
typedef struct {
    double lr, beta1, beta2, momentum, dampening;
    double eps_outside, eps_inside; /* of the square root */
    double l2, decoupled;           /* weight decay of either kind */
    double sign;                    /* of the gradient, over the scale of GradScaler */
    double buffer_gain;             /* of what enters RMSprop's buffer: 1, or lr */
    int64_t family, type, flags;
    int64_t radam, waits, cached; /* RAdam, degenerated_to_sgd off, not PlainRAdam */
} Options;

/* What depends on the step of a tensor. */
typedef struct {
    int64_t flags;
    double momentum, gain; /* SGD, RMSprop: of the buffer, and of what enters it */
    double step, scale;    /* Adam: of m, and of √v */
} Scalars;

/* A parameter: where it lies, its rows (of any length where GC leaves it alone), and the tasks that
 * they are worked on in, from `first_task` on, `at_once` rows each. */
typedef struct {
    char *p, *g, *state[STATES];
    int64_t size, length, at_once, first_task;
    Scalars scalars;
} Tensor;

#define SGD_CASES \
    GC(sgd, 0) GC(sgd, MOMENTUM) GC(sgd, MOMENTUM | NESTEROV)
#define ADAM_CASES                                                                     \
    GC(adam, DECOUPLED) GC(adam, DECOUPLED | AMSGRAD) GC(adam, DECOUPLED | UNRECTIFIED) \
    CASE(adam, WAITS) CASE(adam, WAITS | BEFORE)
#define RMSPROP_CASES \
    GC(rmsprop, 0) GC(rmsprop, MOMENTUM) GC(rmsprop, CENTERED) GC(rmsprop, MOMENTUM | CENTERED)
#define GC(family, c) CASE(family, c) CASE(family, (c) | BEFORE) CASE(family, (c) | AFTER)

/* Half precision: integer arithmetic, which vectorizes everywhere and knows no flush to zero. */

INLINE float as_float(uint32_t x) {
    float f;
    memcpy(&f, &x, 4);
    return f;
}

INLINE uint32_t as_bits(float f) {
    uint32_t x;
    memcpy(&x, &f, 4);
    return x;
}

INLINE float load_bf16(uint16_t x) { return as_float((uint32_t)x << 16); }

/* A NaN needs no care: one that comes of bfloat16 has no bits at the end that could carry. */
INLINE uint16_t store_bf16(float f) {
    uint32_t x = as_bits(f);
    return (x + 0x7fff + (x >> 16 & 1)) >> 16;
}

INLINE float load_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, x = h & 0x7fff;
    uint32_t normal = (x << 13) + (x < 0x7c00 ? 112u << 23 : 224u << 23);
    float subnormal = (float)(int32_t)x * 0x1p-24f;
    return as_float((x < 0x400 ? as_bits(subnormal) : normal) | sign);
}

INLINE uint16_t store_f16(float f) {
    uint32_t x = as_bits(f), sign = x >> 16 & 0x8000;
    x &= 0x7fffffff;
    uint32_t normal = (x - (112u << 23) + 0xfff + (x >> 13 & 1)) >> 13;
    /* Adding 1/2 leaves the bits of a subnormal half, rounded, at the end of the sum's. */
    uint32_t subnormal = as_bits(as_float(x) + 0.5f) - as_bits(0.5f);
    uint32_t finite = x < 113u << 23 ? subnormal : normal;
    return sign | (x > 0x7f800000 ? 0x7e00 : finite > 0x7c00 || x >= 0x7f800000 ? 0x7c00 : finite);
}

#define T float
#define A float
#define LOAD(x) (x)
#define STORE(x) (x)
#define SQRT sqrtf
#define NAME(x) x##_f32
#include "update.h"

#define T double
#define A double
#define LOAD(x) (x)
#define STORE(x) (x)
#define SQRT sqrt
#define NAME(x) x##_f64
#include "update.h"

#define T uint16_t
#define A float
#define LOAD load_bf16
#define STORE store_bf16
#define SQRT sqrtf
#define NAME(x) x##_bf16
#include "update.h"

#define T uint16_t
#define A float
#define LOAD load_f16
#define STORE store_f16
#define SQRT sqrtf
#define NAME(x) x##_f16
#include "update.h"

typedef void Rows(int64_t, const Options *, const Tensor *, int64_t, int64_t, void *);

static Rows *const ROWS[3][4] = {
    {sgd_rows_f32, sgd_rows_f64, sgd_rows_bf16, sgd_rows_f16},
    {adam_rows_f32, adam_rows_f64, adam_rows_bf16, adam_rows_f16},
    {rmsprop_rows_f32, rmsprop_rows_f64, rmsprop_rows_bf16, rmsprop_rows_f16},
};

/* At step t, Adam's m̂ / (√v̂ + eps) as step·m / (scale·√v + eps), and RAdam's with its r_t. */
static Scalars adam_scalars(const Options *o, double t) {
    double bias_correction1 = 1 - pow(o->beta1, t), beta2_t = pow(o->beta2, t);
    Scalars k = {o->flags | DECOUPLED, 0, 0, 1 / bias_correction1, 1 / sqrt(1 - beta2_t)};
    if (!o->radam) return k;
    double rho_inf = 2 / (1 - o->beta2) - 1, rho = rho_inf - 2 * t * beta2_t / (1 - beta2_t);
    if (rho > 5) {
        double r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho));
        k.step *= r / k.scale;
        k.scale = 1;
    } else if (o->waits) {
        k.flags = (k.flags & BEFORE) | WAITS;
    } else {
        k.flags |= UNRECTIFIED;
    }
    return k;
}

/* One step of `count` parameters of one group and type.
 *   addresses  p, g, three tensors of state and the step (float32), 0 where there is none;
 *              `count` of each
 *   shapes     number of elements, length of a row or 0 where GC leaves the parameter alone,
 *              whether it is the first step of its momentum; `count` of each
 * Returns 0, or 1 where there is no memory for the scratch rows, and nothing has changed. */
int classy_gc_step(void *const *addresses, const int64_t *shapes, int64_t count, const Options *o,
                   int threads) {
    int64_t tasks = 0, total = 0, longest = 1;
    Tensor *tensors = malloc((count + 1) * sizeof *tensors);
    if (!tensors) return 1;
    for (int64_t j = 0; j < count; j++) {
        Tensor *x = tensors + j;
        x->size = shapes[j];
        x->length = shapes[count + j];
        if (x->length > longest) longest = x->length;
        if (!x->length) x->length = TASK;
        x->at_once = x->length < TASK ? TASK / x->length : 1;
        x->first_task = tasks;
        tasks += (x->size + x->length * x->at_once - 1) / (x->length * x->at_once);
        total += x->size;
    }
    if (total <= TASK) threads = 1;
    double *scratch = malloc(threads * longest * sizeof *scratch);
    if (!scratch) {
        free(tensors);
        return 1;
    }
    double last_t = 0;
    Scalars k = {o->flags, o->momentum, o->family == SGD ? 1 - o->dampening : o->buffer_gain, 0, 0};
    for (int64_t j = 0; j < count; j++) {
        Tensor *x = tensors + j;
        void *const *address = addresses + j;
        x->p = address[0];
        x->g = address[count];
        for (int s = 0; s < STATES; s++) x->state[s] = address[(2 + s) * count];
        float *t = address[(2 + STATES) * count];
        if (t) ++*t;
        if (o->family == ADAM && !(o->cached && *t == last_t)) k = adam_scalars(o, last_t = *t);
        x->scalars = k;
        if (!shapes[count + j]) x->scalars.flags &= ~(BEFORE | AFTER);
        if (shapes[2 * count + j]) x->scalars.momentum = 0, x->scalars.gain = 1;
    }

    Rows *rows = ROWS[o->family][o->type];
    PARALLEL(num_threads(threads)) {
        double *u = scratch + THREAD * longest;
        DYNAMIC for (int64_t task = 0; task < tasks; task++) {
            int64_t j = 0, end = count; /* the last tensor whose first task is not a later one */
            while (end - j > 1) {
                int64_t middle = (j + end) / 2;
                if (tensors[middle].first_task <= task) j = middle;
                else end = middle;
            }
            const Tensor *x = tensors + j;
            int64_t all = (x->size + x->length - 1) / x->length;
            int64_t first = (task - x->first_task) * x->at_once, last = first + x->at_once;
            rows(x->scalars.flags, o, x, first, last < all ? last : all, u);
        }
    }
    free(scratch);
    free(tensors);
    return 0;
}
