#!/usr/bin/env bash
# The experiments at tuned learning rates, one after the other; what is finished is not run again:
#     bash run_tuned.sh FOLDER
# Each experiment's runs go to FOLDER/NAME, its results.json to results/NAME.
set -euo pipefail
out=$1
gc=(--vary "optimizer.use_gc=false,true")
lr=optimizer.param_schedulers.lr.start_value

compare() { # NAME CONFIG FLAG…
    [ -e "results/$1/results.json" ] && return
    classy-gc compare --config_file "$2.json" "${@:3}" --jobs 2 --output_folder "$out/$1" | tee "$out/$1.txt"
    mkdir -p "results/$1"
    cp "$out/$1/results.json" "results/$1"
}

tuned() { # NAME CONFIG RATES
    compare "$1" "$2" "${gc[@]}" --sweep "optimizer.lr=$3" --seeds 100-102 --confirm 200-215
}

mkdir -p "$out"
tuned tuned_sgd tuned_sgd 0.0125:0.8:7
tuned tuned_adamw tuned_adamw 0.00025:0.016:7
tuned tuned_mnist tuned_mnist 0.0125:0.8:7
tuned tuned_without_norm tuned_without_norm 0.003125:0.2:7

# The best rate of SGD without GC, as the validation images have it.
best=$(python -c "
import json
arms = json.load(open('results/tuned_sgd/results.json'))['arms']
print(next(arm['settings']['optimizer.lr'] for arm in arms if not arm['baseline']))")
compare equal_compute tuned_sgd --seeds 200-215 \
    --arm "on, 12 epochs" optimizer.use_gc=true $lr="$best" \
    --arm "off, 13 epochs" optimizer.use_gc=false $lr="$best" num_epochs=13 test_phase_period=13
compare group_norm_64 group_norm_64 "${gc[@]}" --seeds 200-215
[ -e pretrained/digits/checkpoint.torch ] || classy-gc train --config_file pretrain_digits.json \
    --seed 100 --output_folder "$out/pretrained_digits" --checkpoint_folder pretrained/digits \
    --skip_tensorboard
compare long_fine_tuning long_fine_tuning --vary $lr=0.01,0.05,0.2 "${gc[@]}" \
    --effect_of optimizer.use_gc --seeds 200-207
