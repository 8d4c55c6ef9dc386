// Draws under top-k and top-p, and lists of the most probable tokens. A block takes a row.
//
// Candidates within a bound below the largest logit, chosen from the counts that Draw made, are
// packed into shared memory, as long as they fit; the cut is then searched among them by bisection
// over (logit, token), every step a count or a sum in an order that is always the same.
#include "kernels/cuda_launch.cuh"
#include "kernels/sample_draw.cuh"

namespace penstock {
namespace {

constexpr int kRowWarps = kRowThreads / 32;
constexpr int kPacked = 12288;  // candidates that fit

__device__ int BlockCount(int value, int* shared) {
  value = __reduce_add_sync(~0u, value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  int sum = 0;
  for (int warp = 0; warp < kRowWarps; ++warp) sum += shared[warp];
  return sum;
}

__device__ double BlockMass(float value, float* shared) {
  value = WarpSum(value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
  for (int warp = 0; warp < kRowWarps; ++warp) sum += shared[warp];
  return sum;
}

// A place in falling order of scaled logits (none above 0): the bits of |logit|, then the token.
struct Place {
  std::uint32_t key = ~0u;
  std::int32_t token = INT32_MAX;
};
__device__ __forceinline__ std::uint32_t KeyOf(float scaled) {
  return __float_as_uint(fabsf(scaled));
}

// The candidates of one row: packed ones, or the whole vocabulary.
class Candidates {
 public:
  __device__ Candidates(const SampleRowsArgs& args, const SampleScratch& scratch, std::int64_t row,
                        Candidate* packed)
      : args_(args),
        scratch_(scratch),
        row_(row),
        options_(args.rows[row]),
        state_(scratch.states[row]),
        packed_(packed),
        adjusted_(Adjusts(options_)),
        scale_(ScaleOf(options_)),
        lowest_(LowestOf(options_)) {}

  // Packs the smallest level that holds the cut. `counts`, `masses`: [kLevels], over all chunks.
  __device__ void Pack(const int* counts, const float* masses, int* shared_count) {
    int level = 0;
    const auto holds = [&](int i) {
      return options_.top_k > 0 ? counts[i] >= options_.top_k
                                : masses[i] >= options_.top_p * masses[kLevels - 1];
    };
    while (level < kLevels - 1 && !holds(level)) ++level;
    count_ = counts[level];
    if (count_ > kPacked) {
      count_ = -1;
      return;
    }
    const float bound = level == kLevels - 1 ? lowest_ : fmaxf(lowest_, -kLevelStep * (level + 1));
    if (threadIdx.x == 0) *shared_count = 0;
    __syncthreads();
    EachOfVocabulary([&](float scaled, std::int32_t token) {
      if (scaled >= bound) packed_[atomicAdd(shared_count, 1)] = {scaled, token};
    });
    __syncthreads();
    // Where a candidate stands must not show in sums: sorted by token.
    SortByToken();
  }

  // body(scaled logit, token) over this thread's share, in an order that is always the same.
  template <typename Body>
  __device__ void Each(Body body) const {
    if (count_ < 0) {
      EachOfVocabulary(body);
      return;
    }
    for (int i = static_cast<int>(threadIdx.x); i < count_; i += kRowThreads) {
      body(packed_[i].value, packed_[i].token);
    }
  }

  __device__ const RowState& state() const { return state_; }

 private:
  template <typename Body>
  __device__ void EachOfVocabulary(Body body) const {
    for (std::int64_t first = threadIdx.x * kVector; first < args_.vocab;
         first += kRowThreads * kVector) {
      const Vector8 logits = LoadLogits(args_, scratch_, row_, adjusted_, first);
      for (int i = 0; i < kVector; ++i) {
        const float scaled = Scaled(logits.v[i], state_.highest, scale_);
        if (scaled >= lowest_ && scaled > -INFINITY) {
          body(scaled, static_cast<std::int32_t>(first) + i);
        }
      }
    }
  }

  // Bitonic, over the next power of two.
  __device__ void SortByToken() {
    int size = 1;
    while (size < count_) size *= 2;
    for (int i = count_ + static_cast<int>(threadIdx.x); i < size; i += kRowThreads) {
      packed_[i] = {};
    }
    __syncthreads();
    for (int width = 2; width <= size; width *= 2) {
      for (int step = width / 2; step > 0; step /= 2) {
        for (int i = static_cast<int>(threadIdx.x); i < size / 2; i += kRowThreads) {
          const int low = i / step * 2 * step + i % step, high = low + step;
          const bool rising = (low & width) == 0;
          if ((packed_[low].token > packed_[high].token) == rising) {
            const Candidate other = packed_[low];
            packed_[low] = packed_[high];
            packed_[high] = other;
          }
        }
        __syncthreads();
      }
    }
  }

  const SampleRowsArgs& args_;
  const SampleScratch& scratch_;
  const std::int64_t row_;
  const SampleRow options_;
  const RowState state_;
  Candidate* const packed_;
  const bool adjusted_;
  const float scale_, lowest_;
  int count_ = -1;  // packed; −1: none
};

// The first place for which reached(candidates up to it) holds; the last one if none does.
template <typename Reached>
__device__ Place Bisect(Reached reached) {
  std::uint32_t low = 0, high = 0x7f7fffffu;
  while (low < high) {
    const std::uint32_t middle = low + (high - low) / 2;
    if (reached(Place{middle, INT32_MAX})) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  std::int32_t first = 0, last = INT32_MAX;
  while (first < last) {
    const std::int32_t middle = first + (last - first) / 2;
    if (reached(Place{low, middle})) {
      last = middle;
    } else {
      first = middle + 1;
    }
  }
  return {low, first};
}

__device__ __forceinline__ bool UpTo(float scaled, std::int32_t token, Place place) {
  const std::uint32_t key = KeyOf(scaled);
  return key < place.key || (key == place.key && token <= place.token);
}

__global__ void __launch_bounds__(kRowThreads) SelectTokens(const SampleRowsArgs args) {
  extern __shared__ Candidate packed[];
  __shared__ Candidate bests[kRowWarps];
  __shared__ int counts[kRowWarps], level_counts[kLevels], packed_count;
  __shared__ float masses[kRowWarps], level_masses[kLevels];
  LetNextKernelStart();
  WaitForEarlierKernels();
  const SampleScratch scratch(args.scratch, args.max_rows, args.vocab);
  for (std::int64_t row = blockIdx.x; row < *args.num_rows; row += gridDim.x) {
    const SampleRow& options = args.rows[row];
    if (scratch.states[row].done || options.temperature == 0 || !Selects(options)) continue;
    __syncthreads();
    if (threadIdx.x < kLevels) {
      int count = 0;
      float mass = 0;
      for (int i = 0; i < scratch.num_chunks; ++i) {
        const LevelRecord& record = scratch.levels[row * scratch.num_chunks + i];
        count += __ldcg(record.counts + threadIdx.x);
        mass += __ldcg(record.masses + threadIdx.x);
      }
      level_counts[threadIdx.x] = count;
      level_masses[threadIdx.x] = mass;
    }
    __syncthreads();
    Candidates candidates(args, scratch, row, packed);
    candidates.Pack(level_counts, level_masses, &packed_count);
    __syncthreads();

    Place cut;
    if (options.top_k > 0 && options.top_k < level_counts[kLevels - 1]) {
      cut = Bisect([&](Place place) {
        int own = 0;
        candidates.Each(
            [&](float scaled, std::int32_t token) { own += UpTo(scaled, token, place); });
        return BlockCount(own, counts) >= options.top_k;
      });
    }
    if (options.top_p < 1) {
      const Place kept = cut;
      const auto mass_up_to = [&](Place place) {
        float own = 0;
        candidates.Each([&](float scaled, std::int32_t token) {
          if (UpTo(scaled, token, kept) && UpTo(scaled, token, place)) own += expf(scaled);
        });
        return BlockMass(own, masses);
      };
      // Without top-k, candidates below the packed ones count as well.
      const double total = options.top_k > 0 ? mass_up_to(kept) : double{level_masses[kLevels - 1]};
      const Place cut_by_mass = Bisect([&](Place place) {
        const double mass = mass_up_to(place);
        return mass > 0 && mass >= options.top_p * total;
      });
      if (cut_by_mass.key < cut.key ||
          (cut_by_mass.key == cut.key && cut_by_mass.token < cut.token)) {
        cut = cut_by_mass;
      }
    }
    Candidate best;
    candidates.Each([&](float scaled, std::int32_t token) {
      if (!UpTo(scaled, token, cut)) return;
      const Candidate own = Drawn(options, scaled, token);
      if (own.Beats(best)) best = own;
    });
    best = BlockBest<kRowThreads>(best, bests);
    if (threadIdx.x == 0) Finish(args, row, best.token, candidates.state().log_sum);
  }
}

// The num_top most probable tokens, one after the other: few are asked for, and seldom.
__global__ void __launch_bounds__(kRowThreads) TopTokens(const SampleRowsArgs args) {
  __shared__ Candidate bests[kRowWarps];
  LetNextKernelStart();
  WaitForEarlierKernels();
  const SampleScratch scratch(args.scratch, args.max_rows, args.vocab);
  for (std::int64_t row = blockIdx.x; row < *args.num_rows; row += gridDim.x) {
    const std::int64_t wanted = args.rows[row].num_top;
    if (args.finite[row] == 0) continue;
    const float log_sum = scratch.states[row].log_sum;
    Candidate last = {INFINITY, -1};
    for (std::int64_t place = 0; place < wanted && place < args.max_top; ++place) {
      Candidate best;
      for (std::int64_t first = threadIdx.x * kVector; first < args.vocab;
           first += kRowThreads * kVector) {
        const Vector8 logits = LoadLogits(args, scratch, row, false, first);
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          const Candidate own = {logits.v[i], static_cast<std::int32_t>(first) + i};
          if (first + i < args.vocab && last.Beats(own) && own.Beats(best)) best = own;
        }
      }
      last = best = BlockBest<kRowThreads>(best, bests);
      if (threadIdx.x == 0) {
        args.top_tokens[row * args.max_top + place] = best.token;
        args.top_log_probabilities[row * args.max_top + place] = best.value - log_sum;
      }
    }
  }
}

dim3 RowGrid(const SampleRowsArgs& args) {
  const std::int64_t most = MultiprocessorCount();
  return dim3(static_cast<unsigned>(args.max_rows < most ? args.max_rows : most));
}

}  // namespace

void SelectCuda(const SampleRowsArgs& args, CudaStream stream) {
  // Sorting works on the next power of two.
  constexpr int kSharedBytes = 16384 * static_cast<int>(sizeof(Candidate));
  static_assert(kPacked <= 16384);
  static const cudaError_t allowed =
      cudaFuncSetAttribute(SelectTokens, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (allowed != cudaSuccess) return;
  Launch(SelectTokens, RowGrid(args), kRowThreads, kSharedBytes, Overlap::kWithEarlier, stream,
         args);
}

void TopTokensCuda(const SampleRowsArgs& args, CudaStream stream) {
  Launch(TopTokens, RowGrid(args), kRowThreads, 0, Overlap::kWithEarlier, stream, args);
}

}  // namespace penstock
