/* The step of one row in the paper's symbols: C, then the update. Steps on the CPU run this;
 * centralization.py has the same operator in torch and says which tensors are eligible. rows.c
 * includes this file once for every element type, with
 *   T     an element in memory            A       the type of arithmetic
 *   LOAD  T -> A                          STORE   A -> T, rounded to nearest even
 *   SQRT  of A                            NAME(x) x with the name of the type
 *
 * A row is p, g and up to three tensors of state. μ is the mean of the gradient or of the update,
 * whichever GC acts on. The gradient is read twice, for μ and for the update, the second time from
 * the cache. The update is kept in u, which is scratch memory, until its mean is known. Long rows
 * come in chunks: first all of them are summed, then all are updated with the mean.
 *
 * `c`, the flags of the case, is a constant wherever these are inlined: no branch is left in a
 * loop, and the loops vectorize.
 */

/* Decoupled decay; infinite weights stay as they are, since inf − inf is NaN. */
INLINE A NAME(decay)(A rate, A x) { return x - x == 0 ? rate * x : 0; }

/* The gradient before C, with L2 decay. Without decay the weight is not read: weights of −inf are
 * masks, and 0·inf is NaN. */
INLINE A NAME(gradient)(const int c, const Options *o, const T *p, const T *g, int64_t i) {
    const A d = (A)o->sign * LOAD(g[i]);
    return c & L2 ? d + (A)o->l2 * LOAD(p[i]) : d;
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
    v = (A)o->beta2 * v + (A)o->v_gain * d * d;
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
 * the square of the mean of d; with momentum b ← momentum·b + u takes the place of u. Adagrad is
 * v ← v + d². */
INLINE A NAME(rmsprop)(const int c, const Options *o, const Scalars *k, A d, T *const *s,
                       int64_t i) {
    A v = (A)o->beta2 * LOAD(s[0][i]) + (A)o->v_gain * d * d;
    s[0][i] = STORE(v);
    if (c & CENTERED) {
        A mean = LOAD(s[2][i]);
        mean += (A)o->v_gain * (d - mean);
        s[2][i] = STORE(mean);
        v -= mean * mean;
    }
    A u = d / (SQRT(v + (A)o->eps_inside) + (A)o->eps_outside);
    if (!(c & MOMENTUM)) return u;
    A b = (A)k->momentum * LOAD(s[1][i]) + (A)k->gain * u;
    s[1][i] = STORE(b);
    return b;
}

/* The sum of n values of x, in double. The mean of equal values is that value, exactly: in float32
 * their sum is exact, and in float64 the distances from the first value are summed, which are 0. */
#define SUM_OF(x, from)                                                                        \
    {                                                                                          \
        const double from_ = (from);                                                           \
        double total = 0;                                                                      \
        SIMD(reduction(+ : total)) for (int64_t i = 0; i < n; i++) total += (double)(x)-from_;  \
        sum = (Sum){total, from_};                                                             \
    }

/* Sums values and keeps them in u; float32 takes one loop. */
#define SUM_KEPT(x)                                                 \
    if (sizeof(A) == sizeof(double)) {                              \
        SIMD() for (int64_t i = 0; i < n; i++) u[i] = (x);          \
        SUM_OF(u[i], u[0]);                                         \
    } else {                                                        \
        SUM_OF(u[i] = (x), 0);                                      \
    }

/* The sum of the gradient. In half precision u keeps it, since converting it twice is slow. */
INLINE Sum NAME(sum_gradient)(const int c, const Options *o, const T *restrict p,
                              const T *restrict g, A *restrict u, int64_t n) {
    Sum sum;
    if (sizeof(T) < sizeof(A)) {
        SUM_KEPT(NAME(gradient)(c, o, p, g, i));
    } else {
        const double origin = sizeof(A) == sizeof(double) ? NAME(gradient)(c, o, p, g, 0) : 0;
        SUM_OF(NAME(gradient)(c, o, p, g, i), origin);
    }
    return sum;
}

/* The direction of element i, decoupled decay included; x is the weight. */
#define DIRECTION(x)                                                              \
    ((c & DECOUPLED ? NAME(decay)(wd, x) : 0) +                                   \
     family(c, o, k,                                                              \
            (c & BEFORE && sizeof(T) < sizeof(A) ? u[i]                           \
                                                 : NAME(gradient)(c, o, p, g, i)) \
                - mu_g,                                                           \
            s, i))

typedef A NAME(Family)(int, const Options *, const Scalars *, A, T *const *, int64_t);

INLINE void NAME(row)(NAME(Family) *const family, const int c, const Options *o, const Scalars *k,
                      T *restrict p, const T *restrict g, T *const *s, A *restrict u, int64_t n,
                      Work *work) {
    const A lr = (A)o->lr, wd = (A)o->decoupled;
    A mu_g = 0;
    Sum sum = {0, 0};
    if (c & BEFORE && work->passes & SUM) sum = NAME(sum_gradient)(c, o, p, g, u, n);
    if (c & AFTER && work->passes & SUM) {
        SUM_KEPT(DIRECTION(LOAD(p[i])));
    }
    if (work->passes == SUM) {
        work->sum = sum;
        return;
    }
    const A mu = (A)(work->passes & SUM ? sum.origin + sum.sum / (double)n : work->mean);
    if (c & BEFORE) mu_g = mu;
    if (c & WAITS) {
        SIMD() for (int64_t i = 0; i < n; i++) (void)DIRECTION(0);
    } else if (c & AFTER) {
        SIMD() for (int64_t i = 0; i < n; i++) p[i] = STORE(LOAD(p[i]) - lr * (u[i] - mu));
    } else {
        SIMD() for (int64_t i = 0; i < n; i++) {
            A x = LOAD(p[i]);
            p[i] = STORE(x - lr * DIRECTION(x));
        }
    }
}

/* The mean of n values of x, in LANES sums: a single one would wait for each addition. */
INLINE double NAME(mean)(const T *restrict x, int64_t n) {
    const double origin = sizeof(A) == sizeof(double) ? (double)LOAD(x[0]) : 0;
    double sums[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        fetch(x + i, AHEAD, LANES * sizeof(T));
        SIMD() for (int k = 0; k < LANES; k++) sums[k] += (double)LOAD(x[i + k]) - origin;
    }
    for (; i < n; i++) sum += (double)LOAD(x[i]) - origin;
    for (int half = LANES / 2; half; half /= 2) {
        SIMD() for (int k = 0; k < half; k++) sums[k] += sums[k + half];
    }
    sum += sums[0];
    return origin + sum / (double)n;
}

/* Writes the means of `count` rows of n elements, or shifts the rows to those means (or to 0). */
CLONES static void NAME(row_means)(void *rows, int64_t count, int64_t n, double *means, int set) {
    for (int64_t r = 0; r < count; r++) {
        T *restrict x = (T *)rows + r * n;
        const double mean = NAME(mean)(x, n);
        if (!set) {
            means[r] = mean;
            continue;
        }
        const double wanted = means ? means[r] : 0;
        if (isinf(wanted)) continue; /* weights of -inf are masks */
        const A shift = (A)(mean - wanted);
        if (LOAD(x[0]) == LOAD(x[n - 1])) { /* perhaps all equal: they become exactly the mean */
            SIMD() for (int64_t i = 0; i < n; i++) x[i] = STORE((A)(LOAD(x[i]) - mean + wanted));
            continue;
        }
        int64_t i = 0;
        for (; i + LANES <= n; i += LANES) {
            fetch(x + n + i, AHEAD, LANES * sizeof(T)); /* of the rows that come next */
            SIMD() for (int k = 0; k < LANES; k++) x[i + k] = STORE(LOAD(x[i + k]) - shift);
        }
        for (; i < n; i++) x[i] = STORE(LOAD(x[i]) - shift);
    }
}

#undef DIRECTION
#undef SUM_KEPT
#undef SUM_OF

/* The work on x, for one combination of flags. */
#define CASE(family, c) CASE_OF(family, c) CASE_OF(family, (c) | L2)
#define CASE_OF(family, c)                                                                       \
    case c:                                                                                      \
        for (int64_t at = work->at; at < work->end; at += work->length) {                        \
            int64_t n = work->end - at < work->length ? work->end - at : work->length;           \
            T *s[STATES];                                                                        \
            for (int j = 0; j < STATES; j++) s[j] = (T *)x->state[j] + at;                       \
            NAME(row)(NAME(family), c, o, &x->scalars, (T *)x->p + at, (const T *)x->g + at, s,  \
                      (A *)work->u, n, work);                                                    \
        }                                                                                        \
        return;
#define ROWS_OF(family, cases)                                                                \
    CLONES static void NAME(family##_rows)(int64_t c, const Options *o, const Tensor *x,      \
                                           Work *work) {                                      \
        switch (c) { cases }                                                                  \
    }

ROWS_OF(sgd, SGD_CASES)
ROWS_OF(adam, ADAM_CASES)
ROWS_OF(rmsprop, RMSPROP_CASES)

#undef ROWS_OF
#undef CASE
#undef CASE_OF
#undef T
#undef A
#undef LOAD
#undef STORE
#undef SQRT
#undef NAME
