/* Gradient centralization and the update in one pass over memory: a row that has just been summed
 * is still in the cache when it is updated. update.h has the maths; this file has the types of
 * element, the scalars of a step, and the threads.
 *
 * Plain C, called with addresses: no header of Python or torch. One thread works on a row, or on a
 * chunk of a long row whose sums are added in order, and nothing is contracted
 * (-ffp-contract=off): the results are the same bits for every number of threads.
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
#define DYNAMIC_ON PRAGMA(omp for schedule(dynamic) nowait)
#define THREAD omp_get_thread_num()
#else
#define SIMD(clauses)
#define PARALLEL(clauses)
#define DYNAMIC
#define DYNAMIC_ON
#define THREAD 0
#endif

#define INLINE static inline __attribute__((always_inline))
#ifdef TARGETS
#define CLONES __attribute__((target_clones(TARGETS)))
#else
#define CLONES
#endif

#define STATES 3
#define TASK (1 << 15) /* elements of a task, if a row is not longer */
#define LANES 32
#define LONG (1 << 18) /* longer rows are shared between threads */
#define AHEAD 16384    /* the distance of prefetches, in bytes */

enum { SGD, ADAM, RMSPROP };
enum { F32, F64, BF16, F16 };
enum {
    MOMENTUM = 1,    /* SGD, RMSprop: there is a momentum buffer */
    NESTEROV = 2,    /* SGD */
    AMSGRAD = 4,     /* Adam */
    UNRECTIFIED = 8, /* RAdam */
    WAITS = 16,      /* RAdam: the moments advance, the weight does not */
    CENTERED = 32,   /* RMSprop */
    BEFORE = 64,     /* GC acts on the gradient */
    AFTER = 128,     /* GC acts on the update */
    DECOUPLED = 256, /* Adam: weight decay is part of the update */
    L2 = 512,        /* weight decay is part of the gradient */
};

/* The columns of a group's table, which has an entry for each parameter; as in table.py. */
enum { P, G, STEP, STATE, SIZE = STATE + STATES, LENGTH, TYPE, NEW };

/* The options of a parameter group; rows.py has the same fields in the same order. */
typedef struct {
    double lr, beta1, beta2, momentum, dampening;
    double v_gain;                  /* of d² in v: 1 − β₂, 1 for Adagrad */
    double eps_outside, eps_inside; /* of the square root */
    double l2, decoupled;           /* weight decay of either kind */
    double sign;                    /* of the gradient, divided by the scale of GradScaler */
    double buffer_gain;             /* RMSprop: the factor of u in the momentum buffer, 1 or lr */
    int64_t radam, waits;           /* RAdam, degenerated_to_sgd off */
    int64_t family, flags, count;
    const int64_t *table;
} Options;

/* The flags and factors of a tensor, which depend on its step count. */
typedef struct {
    int64_t flags;
    double momentum, gain; /* SGD, RMSprop: of the old buffer and of the new term */
    double step, scale;    /* Adam: of m, and of √v */
} Scalars;

/* A sum of values, each less `origin`. */
typedef struct {
    double sum, origin;
} Sum;

enum { SUM = 1, UPDATE = 2 };

/* Work on the elements from `at` to `end`, in rows or chunks of `length`: sum them, update them
 * with the mean, or both. `u` is scratch memory for one row. */
typedef struct {
    int64_t at, end, length;
    int passes;
    Sum sum;
    double mean;
    void *u;
} Work;

/* A parameter: its addresses, its rows (of any length if GC leaves it alone), and its tasks, which
 * begin at `first_task` and have `at_once` rows each. Rows of more than LONG elements belong to no
 * task: the threads share the chunks of a batch of `at_once` such rows. */
typedef struct Tensor {
    char *p, *g, *state[STATES];
    int64_t size, length, width, at_once, first_task, tasks, chunks;
    const Options *options;
    void (*rows)(int64_t, const Options *, const struct Tensor *, Work *);
    Scalars scalars;
} Tensor;

/* The memory of a step: the parameters; u, for a row of each thread or for a batch of long rows;
 * and the sums of the chunks of such a batch and the means of its rows. */
typedef struct {
    Tensor *tensors;
    char *u;
    Sum *sums;
    double *means;
    int64_t count, tasks, longest; /* numbers: parameters, tasks, elements of the longest row */
    int threads;
} Step;

#define SGD_CASES \
    GC(sgd, 0) GC(sgd, MOMENTUM) GC(sgd, MOMENTUM | NESTEROV)
#define ADAM_CASES                                                                     \
    GC(adam, DECOUPLED) GC(adam, DECOUPLED | AMSGRAD) GC(adam, DECOUPLED | UNRECTIFIED) \
    CASE(adam, WAITS) CASE(adam, WAITS | BEFORE)
#define RMSPROP_CASES \
    GC(rmsprop, 0) GC(rmsprop, MOMENTUM) GC(rmsprop, CENTERED) GC(rmsprop, MOMENTUM | CENTERED)
#define GC(family, c) CASE(family, c) CASE(family, (c) | BEFORE) CASE(family, (c) | AFTER)

/* Prefetches `bytes` that begin `ahead` of x; past the end of a tensor that is harmless. */
INLINE void fetch(const void *x, int64_t ahead, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)x + ahead + i);
}

/* Half precision by integer arithmetic, which vectorizes on every CPU and keeps subnormals. */

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

/* NaN needs no branch: the low bits of one that was bfloat16 are 0 and cannot carry. */
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
    /* After adding 1/2 the last bits of the sum are those of the rounded subnormal half. */
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

typedef void Rows(int64_t, const Options *, const Tensor *, Work *);

static Rows *const ROWS[3][4] = {
    {sgd_rows_f32, sgd_rows_f64, sgd_rows_bf16, sgd_rows_f16},
    {adam_rows_f32, adam_rows_f64, adam_rows_bf16, adam_rows_f16},
    {rmsprop_rows_f32, rmsprop_rows_f64, rmsprop_rows_bf16, rmsprop_rows_f16},
};

/* Adam's m̂ / (√v̂ + eps) at step t is step·m / (scale·√v + eps); RAdam's has r_t in `step`. */
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

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Advances the step counts of a group, and sets the scalars that depend on them. */
static void set_scalars(const Options *o, Tensor *tensors) {
    double last_t = 0;
    Scalars k = {o->flags, o->momentum, o->family == SGD ? 1 - o->dampening : o->buffer_gain, 0, 0};
    for (int64_t j = 0; j < o->count; j++) {
        float *t = (float *)o->table[STEP * o->count + j];
        if (t) ++*t;
        if (o->family == ADAM && *t != last_t) k = adam_scalars(o, last_t = *t);
        Scalars *own = &tensors[j].scalars;
        *own = k;
        if (o->l2 != 0) own->flags |= L2;
        if (!o->table[LENGTH * o->count + j]) own->flags &= ~(BEFORE | AFTER);
        /* Only steps with dampening set the column; otherwise it may be an older one. */
        if (o->dampening != 0 && o->table[NEW * o->count + j]) own->momentum = 0, own->gain = 1;
    }
}

/* Parameter j of a group, cut into tasks. */
static Tensor tensor_of(const Options *o, int64_t j, int threads) {
    const int64_t *column = o->table + j, count = o->count, type = column[TYPE * count];
    Tensor x = {.p = (char *)column[P * count], .g = (char *)column[G * count], .options = o};
    for (int s = 0; s < STATES; s++) x.state[s] = (char *)column[(STATE + s) * count];
    x.rows = ROWS[o->family][type];
    x.size = column[SIZE * count];
    x.length = column[LENGTH * count];
    x.width = type == F64 ? 8 : 4;
    if (x.length > LONG) {
        x.at_once = least(1 + threads * (LONG / x.length), x.size / x.length);
        x.chunks = (x.length + TASK - 1) / TASK;
        return x;
    }
    if (!x.length) x.length = TASK;
    x.at_once = most(TASK / x.length, 1);
    x.tasks = (x.size + x.length * x.at_once - 1) / (x.length * x.at_once);
    return x;
}

/* Runs a task of x, by its index among the tasks of x. */
static void some_rows(const Tensor *x, int64_t task, void *u) {
    int64_t each = x->length * x->at_once, at = task * each;
    Work work = {at, least(at + each, x->size), x->length, SUM | UPDATE, {0, 0}, 0, u};
    x->rows(x->scalars.flags, x->options, x, &work);
}

/* Sums or updates chunk `i` of a batch of long rows of x; `row` is the first one. */
static void chunk(const Tensor *x, int64_t row, int64_t i, int passes, Step *all) {
    int64_t r = i / x->chunks, from = i % x->chunks * TASK, at = (row + r) * x->length + from;
    int64_t end = least(at + TASK, (row + r + 1) * x->length);
    char *u = all->u + (r * x->length + from) * x->width;
    Work work = {at, end, TASK, passes, {0, 0}, all->means[r], u};
    x->rows(x->scalars.flags, x->options, x, &work);
    if (passes & SUM) all->sums[i] = work.sum;
}

/* The mean of a row from the sums of its chunks, added in order. */
static double mean_of_chunks(const Tensor *x, const Sum *sums) {
    double sum = 0, origin = sums[0].origin;
    for (int64_t i = 0; i < x->chunks; i++) {
        int64_t n = least(TASK, x->length - i * TASK);
        sum += sums[i].sum + (double)n * (sums[i].origin - origin);
    }
    return origin + sum / (double)x->length;
}

/* Cuts `count` parameter groups into tasks if `memory` is given; returns the bytes that it needs. */
static int64_t lay_out(const Options *groups, int64_t count, int threads, char *memory,
                       Step *step) {
    int64_t all = 0, tasks = 0, total = 0, bytes = 1, chunks = 1, rows = 1, longest = 1;
    for (const Options *o = groups; o < groups + count; o++) {
        for (int64_t j = 0; j < o->count; j++, all++) {
            Tensor x = tensor_of(o, j, threads);
            x.first_task = tasks;
            if (memory) ((Tensor *)memory)[all] = x;
            tasks += x.tasks;
            total += x.size;
            if (!x.chunks) {
                longest = most(longest, x.length);
                continue;
            }
            chunks = most(chunks, x.at_once * x.chunks);
            rows = most(rows, x.at_once);
            /* The system allocates only pages that are touched. */
            bytes = most(bytes, x.at_once * x.length * x.width);
        }
    }
    if (total <= TASK) threads = 1;
    bytes = most(bytes, threads * longest * (int64_t)sizeof(double));
    int64_t sums = all * sizeof(Tensor), means = sums + chunks * sizeof(Sum);
    int64_t u = (means + rows * (int64_t)sizeof(double) + 63) / 64 * 64;
    if (memory)
        *step = (Step){(Tensor *)memory, memory + u, (Sum *)(memory + sums),
                       (double *)(memory + means), all, tasks, longest, threads};
    return u + bytes;
}

/* The bytes of memory that classy_gc_step needs. */
int64_t classy_gc_memory(const Options *groups, int64_t count, int threads) {
    return lay_out(groups, count, threads, NULL, NULL);
}

/* Takes one step of `count` parameter groups, in `memory`, or in memory of its own if that is null.
 * Returns 1 if there is no memory, before anything has changed; else 0. */
int classy_gc_step(const Options *groups, int64_t count, int threads, void *memory) {
    Step step;
    void *own = memory ? NULL : malloc(lay_out(groups, count, threads, NULL, NULL));
    if (!memory && !own) return 1;
    lay_out(groups, count, threads, memory ? memory : own, &step);
    Tensor *tensors = step.tensors, *next = tensors;
    for (const Options *o = groups; o < groups + count; next += o->count, o++) set_scalars(o, next);

    PARALLEL(num_threads(step.threads) if (step.threads > 1)) {
        char *u = step.u + THREAD * step.longest * sizeof(double);
        DYNAMIC for (int64_t task = 0; task < step.tasks; task++) {
            int64_t j = 0, end = step.count; /* the last tensor that begins at or before the task */
            while (end - j > 1) {
                int64_t middle = (j + end) / 2;
                if (tensors[middle].first_task <= task) j = middle;
                else end = middle;
            }
            some_rows(tensors + j, task - tensors[j].first_task, u);
        }
        for (const Tensor *x = tensors; x < tensors + step.count; x++) {
            if (!x->chunks) continue;
            for (int64_t row = 0, all_rows = x->size / x->length; row < all_rows;
                 row += x->at_once) {
                int64_t here = least(x->at_once, all_rows - row), pieces = here * x->chunks;
                DYNAMIC for (int64_t i = 0; i < pieces; i++) chunk(x, row, i, SUM, &step);
                DYNAMIC for (int64_t r = 0; r < here; r++)
                    step.means[r] = mean_of_chunks(x, step.sums + r * x->chunks);
                DYNAMIC for (int64_t i = 0; i < pieces; i++) chunk(x, row, i, UPDATE, &step);
            }
        }
    }
    free(own);
    return 0;
}

typedef void RowMeans(void *, int64_t, int64_t, double *, int);

/* Writes the mean of each row, or with `set` shifts each row so that it has the given mean, for GC
 * around a step of another optimizer. In the column G of the table are the addresses of the means,
 * or 0 for means of 0. */
void classy_gc_means(const int64_t *table, int64_t count, int threads, int set) {
    static RowMeans *const of_type[] = {row_means_f32, row_means_f64, row_means_bf16, row_means_f16};
    const int64_t *x = table + P * count, *means = table + G * count, *size = table + SIZE * count;
    const int64_t *length = table + LENGTH * count, *type = table + TYPE * count;
    int64_t total = 0;
    for (int64_t j = 0; j < count; j++) total += size[j];
    if (total <= TASK) threads = 1;
    PARALLEL(num_threads(threads) if (threads > 1)) {
        for (int64_t j = 0; j < count; j++) {
            int64_t each = most(TASK / length[j], 1), width = type[j] == F64 ? 8 : type[j] ? 2 : 4;
            int64_t rows = size[j] / length[j];
            DYNAMIC_ON for (int64_t r = 0; r < rows; r += each)
                of_type[type[j]]((char *)x[j] + r * length[j] * width, least(each, rows - r),
                                 length[j], means[j] ? (double *)means[j] + r : NULL, set);
        }
    }
}
