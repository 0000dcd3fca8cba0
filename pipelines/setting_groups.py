"""Groups of settings, as help pages show them. Every setting of extract and train is in one."""

GROUPS = {
    "Data": ("data", "data_set", "train_set", "labels", "on_bad_sample", "rows"),
    "Views": ("transform", "transform_set", "mix", "mix_alpha", "mean", "std", "views", "order", "accept_drift"),
    "Teacher": (
        "teacher", "teacher_set", "weights", "teacher_answers", "class_map", "mask_classes", "subclasses",
        "min_accuracy", "parents",
    ),
    "Student": ("student", "student_set"),
    "Soft labels": (
        "store", "encoding", "top_k", "quantisation", "packing", "draws", "draw_temperature", "keep", "tail",
        "combine", "ensemble_weights", "drop",
    ),
    "Loss": (
        "objective", "set", "temperature", "calibration_store", "trust", "curriculum", "select_set", "select_steps",
        "select_rate", "over_epochs", "kd_epochs", "then",
    ),
    "Optimiser": (
        "epochs", "optimizer", "optimizer_set", "lr", "momentum", "weight_decay", "schedule", "step_epochs",
        "step_factor", "warmup_epochs", "clip_grad", "accumulate", "ema", "training",
    ),
    "Validation": ("val_data", "val_set", "val_transform", "val_transform_set", "val_store", "val_epochs"),
    "Run": ("config", "seed", "seeds", "first_seed", "keep_epochs", "checkpoint_steps", "seal", "folder"),
    "Machine": (
        "batch_size", "precision", "compile", "device", "workers", "worker_start", "memory_gb", "view_cache",
        "decoded_cache", "fill_view_cache", "view_cache_gb", "engine", "scheduler", "dask_workers", "dashboard", "jobs",
    ),
}  # fmt: skip
OF_STUDENT = {"weights": "Student", "subclasses": "Student", "batch_size": "Optimiser"}  # where there is no teacher
_BY_NAME = {name: group for group, names in GROUPS.items() for name in names}


def group_of(name: str, *, has_teacher: bool = True) -> str | None:
    """The group of a setting, None for one of no group. `has_teacher`: the settings name a teacher."""
    return (None if has_teacher else OF_STUDENT.get(name)) or _BY_NAME.get(name)
