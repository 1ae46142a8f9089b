#!/usr/bin/env bash
# All experiments, one after the other; what is finished is not run again. In this folder:
#     bash run.sh FOLDER
# Each experiment's runs go to FOLDER/NAME, its results.json to results/NAME.
set -euo pipefail
out=$1
lr=optimizer.param_schedulers.lr.start_value
gc=(--vary optimizer.use_gc=false,true)
both=(--arm "GC off" optimizer.use_gc=false
      --arm "GC on, gc_loc false" optimizer.use_gc=true optimizer.gc_loc=false
      --arm "GC on, gc_loc true" optimizer.use_gc=true optimizer.gc_loc=true)

compare() { # NAME CONFIG SEEDS FLAG…
    classy-gc compare --config_file "$2.json" --seeds "$3" "${@:4}" \
        --target accuracy/top_1=0.8 --jobs 2 --output_folder "$out/$1" | tee "$out/$1.txt"
    mkdir -p "results/$1"
    cp "$out/$1/results.json" "results/$1"
}

pretrain() { # NAME CONFIG
    [ -e "pretrained/$1/checkpoint.torch" ] || classy-gc train --config_file "$2" --seed 100 \
        --output_folder "$out/pretrained_$1" --checkpoint_folder "pretrained/$1" --skip_tensorboard
}

mkdir -p "$out"
compare sgd fashion_sgd 8 "${gc[@]}"
compare adamw fashion_adamw 8 "${gc[@]}"
compare adam fashion_adam 5 "${both[@]}"
compare high_lr fashion_sgd 5 --vary $lr=0.2 "${gc[@]}"
compare batch_4 fashion_batch_4 5 "${gc[@]}"
pretrain digits pretrain_digits.json
compare digits_to_fashion fashion_fine_tuning 5 "${gc[@]}"
pretrain fashion pretrain_fashion.json
compare fashion_to_digits digits_fine_tuning 5 "${gc[@]}"
compare bfloat16 fashion_bfloat16 5 "${both[@]}"

compare no_decay fashion_sgd 5 --vary optimizer.weight_decay=0 "${gc[@]}"
compare clipping fashion_sgd 5 --vary clip_grad_norm=1.0 "${gc[@]}"
compare conv_only fashion_sgd 5 --vary optimizer.gc_conv_only=false,true
compare small fashion_sgd 5 "${gc[@]}" --effect_of optimizer.use_gc \
    --arm "4 channels" model.init_planes=4 model.heads.0.in_plane=16 \
    --arm "8 channels" model.init_planes=8 model.heads.0.in_plane=32
compare adamw_loc fashion_adamw 5 --vary optimizer.gc_loc=true,false
