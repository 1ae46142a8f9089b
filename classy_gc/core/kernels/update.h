/* One row, in the paper's symbols: C, then the update. rows.c includes this once for every type
 * of element, with
 *   T     an element in memory            A       the type of arithmetic
 *   LOAD  T -> A                          STORE   A -> T, rounded to nearest even
 *   SQRT  of A                            NAME(x) x with the name of the type
 *
 * A row is p, g and up to three tensors of state; μ is the mean of what GC acts on. Where that is
 * the gradient, the row is read twice, for μ and for the update, and the second time it lies in
 * the cache. Where it is the update, that waits in u, one row of scratch memory a thread.
 *
 * `c`, the flags of the case, is a constant wherever these are inlined: no branch is left in a
 * loop, and the loops vectorize.
 */

/* The gradient that the moments see, but for C. */
INLINE A NAME(gradient)(const Options *o, const T *p, const T *g, int64_t i) {
    return (A)o->sign * LOAD(g[i]) + (A)o->l2 * LOAD(p[i]);
}

/* m ← momentum·m + (1 − dampening)·d; u = m, or Nesterov's d + momentum·m. */
INLINE A NAME(sgd)(const int c, const Options *o, const Scalars *k, A d, T *const *s, int64_t i) {
    if (!(c & MOMENTUM)) return d;
    A m = (A)k->momentum * LOAD(s[0][i]) + (A)k->gain * d;
    s[0][i] = STORE(m);
    return c & NESTEROV ? d + (A)o->momentum * m : m;
}

/* m ← β₁·m + (1 − β₁)·d, v ← β₂·v + (1 − β₂)·d²; u = step·m / (scale·√v + eps), with AMSGrad the
 * largest v so far; before RAdam's rectification u = step·m. */
INLINE A NAME(adam)(const int c, const Options *o, const Scalars *k, A d, T *const *s, int64_t i) {
    A m = LOAD(s[0][i]), v = LOAD(s[1][i]);
    m += (A)(1 - o->beta1) * (d - m);
    v = (A)o->beta2 * v + (A)(1 - o->beta2) * d * d;
    s[0][i] = STORE(m);
    s[1][i] = STORE(v);
    if (c & AMSGRAD) {
        A largest = LOAD(s[2][i]);
        v = v < largest ? largest : v;
        s[2][i] = STORE(v);
    }
    return c & UNRECTIFIED ? (A)k->step * m
                           : (A)k->step * m / ((A)k->scale * SQRT(v) + (A)o->eps_outside);
}

/* v ← α·v + (1 − α)·d²; u = d / (√v + eps), TensorFlow's d / √(v + eps), where CENTERED of v less
 * the square of the mean of d; with momentum b ← momentum·b + u takes the place of u. */
INLINE A NAME(rmsprop)(const int c, const Options *o, const Scalars *k, A d, T *const *s,
                       int64_t i) {
    A v = (A)o->beta2 * LOAD(s[0][i]) + (A)(1 - o->beta2) * d * d;
    s[0][i] = STORE(v);
    if (c & CENTERED) {
        A mean = LOAD(s[2][i]);
        mean += (A)(1 - o->beta2) * (d - mean);
        s[2][i] = STORE(mean);
        v -= mean * mean;
    }
    A u = d / (SQRT(v + (A)o->eps_inside) + (A)o->eps_outside);
    if (!(c & MOMENTUM)) return u;
    A b = (A)k->momentum * LOAD(s[1][i]) + (A)k->gain * u;
    s[1][i] = STORE(b);
    return b;
}

/* μ of n values of x, by a sum in double. Of equal elements it is what each of them is: in float32
 * since their sum is exact, in float64 since what is summed is the distance from the first. */
#define MEAN(mean, x, origin)                                                                     \
    A mean;                                                                                       \
    {                                                                                             \
        double sum = 0;                                                                           \
        SIMD(reduction(+ : sum)) for (int64_t i = 0; i < n; i++) sum += (double)(x) - (origin);    \
        mean = (A)((origin) + sum / (double)n);                                                   \
    }

/* The same, and the values stay in u: where arithmetic is float32 in one loop. */
#define MEAN_KEPT(mean, x)                                                     \
    if (sizeof(A) == sizeof(double)) {                                         \
        SIMD() for (int64_t i = 0; i < n; i++) u[i] = (x);                     \
    }                                                                          \
    const double mean##_origin = sizeof(A) == sizeof(double) ? u[0] : 0;       \
    MEAN(mean, sizeof(A) == sizeof(double) ? u[i] : (u[i] = (x)), mean##_origin)

/* μ of the gradient; in half precision that stays in u, for what it takes to convert it twice. */
INLINE A NAME(mean_gradient)(const Options *o, const T *restrict p, const T *restrict g,
                             A *restrict u, int64_t n) {
    if (sizeof(T) < sizeof(A)) {
        MEAN_KEPT(mean, NAME(gradient)(o, p, g, i));
        return mean;
    }
    const double origin = sizeof(A) == sizeof(double) ? NAME(gradient)(o, p, g, 0) : 0;
    if (o->l2 != 0) {
        MEAN(mean, NAME(gradient)(o, p, g, i), origin);
        return mean;
    }
    MEAN(mean, (A)o->sign * LOAD(g[i]), origin);
    return mean;
}

/* The direction of element i, decoupled decay included; x is the weight. */
#define DIRECTION(x)                                                                          \
    ((c & DECOUPLED ? wd * (x) : 0) +                                                         \
     family(c, o, k,                                                                          \
            (c & BEFORE && sizeof(T) < sizeof(A) ? u[i] : NAME(gradient)(o, p, g, i)) - mu_g, \
            s, i))

typedef A NAME(Family)(int, const Options *, const Scalars *, A, T *const *, int64_t);

INLINE void NAME(row)(NAME(Family) *const family, const int c, const Options *o, const Scalars *k,
                      T *restrict p, const T *restrict g, T *const *s, A *restrict u, int64_t n) {
    const A lr = (A)o->lr, wd = (A)o->decoupled;
    const A mu_g = c & BEFORE ? NAME(mean_gradient)(o, p, g, u, n) : 0;
    if (c & WAITS) {
        SIMD() for (int64_t i = 0; i < n; i++) (void)DIRECTION(0);
    } else if (c & AFTER) {
        MEAN_KEPT(mu, DIRECTION(LOAD(p[i])));
        SIMD() for (int64_t i = 0; i < n; i++) p[i] = STORE(LOAD(p[i]) - lr * (u[i] - mu));
    } else {
        SIMD() for (int64_t i = 0; i < n; i++) {
            A x = LOAD(p[i]);
            p[i] = STORE(x - lr * DIRECTION(x));
        }
    }
}

#undef DIRECTION
#undef MEAN_KEPT
#undef MEAN

/* Rows `first` to `last` of x, in the case that its flags say. */
#define CASE(family, c)                                                                          \
    case c:                                                                                      \
        for (int64_t r = first; r < last; r++) {                                                 \
            int64_t at = r * x->length, n = x->size - at < x->length ? x->size - at : x->length; \
            T *s[STATES];                                                                        \
            for (int j = 0; j < STATES; j++) s[j] = (T *)x->state[j] + at;                       \
            NAME(row)(NAME(family), c, o, &x->scalars, (T *)x->p + at, (const T *)x->g + at, s,  \
                      u, n);                                                                     \
        }                                                                                        \
        return;
#define ROWS_OF(family, cases)                                                                \
    CLONES static void NAME(family##_rows)(int64_t c, const Options *o, const Tensor *x,      \
                                           int64_t first, int64_t last, void *u) {            \
        switch (c) { cases }                                                                  \
    }

ROWS_OF(sgd, SGD_CASES)
ROWS_OF(adam, ADAM_CASES)
ROWS_OF(rmsprop, RMSPROP_CASES)

#undef ROWS_OF
#undef CASE
#undef T
#undef A
#undef LOAD
#undef STORE
#undef SQRT
#undef NAME
