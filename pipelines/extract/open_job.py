"""A job is built from extract's settings, of pictures or of texts."""

import numpy as np
import torch
from torch import Tensor

from kdcache.base.devices import chosen_device
from kdcache.base.progress import Progress, silent
from kdcache.base.records import validated
from kdcache.errors import InvalidInputError
from kdcache.labels.encoding import LabelSpace
from kdcache.networks.answer import Answer
from kdcache.networks.answers import Answers
from kdcache.networks.build import build_network, network_codes, network_text
from kdcache.networks.first_views import first_views, give_shapes
from kdcache.networks.own_input import feeding, own_input
from kdcache.networks.preparation import Preparation
from kdcache.networks.teacher import Teacher
from kdcache.networks.text_teacher import TextTeacher
from kdcache.networks.transformers_folder import recorded
from kdcache.networks.weights import load_weights
from kdcache.pipelines.extract.class_matching import classes_to_build, matched_classes
from kdcache.pipelines.extract.encoding_choice import chosen_encoding, with_fitting_labels
from kdcache.pipelines.extract.job import Job, TextJob, naming_samples
from kdcache.pipelines.extract.kept import classifier, kept_taps
from kdcache.pipelines.extract.subclasses import chosen_subclasses, require_subclasses
from kdcache.pipelines.extract.views import open_views, stored_identity
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.lineage import open_lineage, read_subclasses
from kdcache.store.manifest import Identity, TeacherIdentity
from kdcache.store.plan import GROUP, ViewPlan
from kdcache.store.segment_layout import require_small_taps
from kdcache.store.whole_arrays import make_order
from kdcache.views.contents import contents_of
from kdcache.views.data import Data
from kdcache.views.draw import ViewDataset
from kdcache.views.provenance import provenance
from kdcache.views.readable import first_view
from kdcache.views.texts import texts_of_order
from kdcache.views.transforms import none


def open_job(settings: ExtractSettings, progress: Progress = silent) -> Job:
    """Build the parts of the job and read the data set's identity; nothing is written. Raises InvalidInputError."""
    if settings.batch_size < GROUP or settings.batch_size % GROUP:
        raise InvalidInputError(f"batch size {settings.batch_size} is not a multiple of {GROUP}, the mixing group")
    strikes = settings.on_bad_sample == "strike"
    data, transform, plan = open_views(settings, progress)
    if data.sequence > 1:
        return open_text_job(settings, data, plan)
    device = chosen_device(settings.device)
    with naming_samples(data):
        view, data_identity = first_view(transform, data.samples, plan.seed, strikes=strikes), data.identity()
    stored = stored_identity(settings)
    teacher, teacher_notes = _open_teacher(settings, data, view, device, stored.teacher if stored else None)
    answer = _first_answer(teacher, view)
    subclasses = teacher.answers.subclasses
    require_subclasses(int(answer.logits.shape[1]), subclasses, data)
    count = int(answer.logits.shape[1]) // subclasses
    class_map = matched_classes(settings, data, teacher, classes=count, stored=stored.teacher if stored else None)
    if class_map.map:
        teacher.map_answers(Answers(teacher.answers.kind, class_map.map, class_map.classes))
        answer = _first_answer(teacher, view)
    classes, head = int(answer.logits.shape[1]), classifier(teacher, answer, settings.keep)
    space = LabelSpace(classes, teacher.masked_classes, subclasses=subclasses)
    encoding = chosen_encoding(settings, space, contents_of(data.samples))
    width = int(head["weight"].shape[1]) if head else 0
    encoding = encoding.model_copy(
        update={
            "features": width if "features" in settings.keep else 0,
            "head": width if "head" in settings.keep else 0,
            "taps": kept_taps(teacher, view, settings.keep),
        }
    )
    order, order_identity = make_order(len(data), settings.order, settings.seed)
    parents, lineage = open_lineage(settings.weights, settings.parents)
    identity = validated(
        Identity,
        "the store's identity",
        dataset=with_fitting_labels(data_identity, data, classes // subclasses),
        order=order_identity,
        views=plan,
        teacher=teacher.identity(
            *recorded(settings.teacher, settings.teacher_set, teacher.network),
            classes,
            network_text(teacher.network, settings.teacher, stored.teacher.text if stored else ""),
        ),
        encoding=encoding,
        parents=parents,
    )
    require_small_taps(identity, settings.views)
    return Job(
        data=data,
        teacher=teacher,
        identity=identity,
        order=order,
        labels=data.labels[order].astype(np.int64),
        dataset=ViewDataset(
            data.samples,
            order,
            plan,
            transform,
            encoding.kinds_of_contents,
            data.ids,
            stand_in=torch.zeros_like(view).numpy() if strikes else None,
        ),
        provenance=provenance(
            device,
            decoder=data.decoder,
            data=data.name,
            code=network_codes(teacher.network, settings.teacher),
        ),
        lineage=lineage,
        head=head if "head" in settings.keep else {},
        views=settings.views,
        batch_rows=settings.batch_size if teacher.forward_rows is None else GROUP,
        view_bytes=view.nbytes,
        is_new=stored is None,
        notes=(*data.notes, *class_map.notes, *teacher_notes, *teacher.notes, *_masked_notes(settings, data)),
    )


def _first_answer(teacher: Teacher, view: Tensor) -> Answer:
    """The answer to one view twice. Raises InvalidInputError for a network that does not take such views."""
    images = teacher.preparation(view[None].expand(2, *view.shape))
    with first_views(teacher.network, images, "teacher", precision=teacher.precision):
        return teacher.answer_at_once(images)


def _open_teacher(
    settings: ExtractSettings, data: Data, view: Tensor, device: str, stored: TeacherIdentity | None
) -> tuple[Teacher, tuple[str, ...]]:
    """The teacher before its classes are matched with the data's, and notes on its weights file and how it is fed."""
    weights, subclasses = settings.weights, chosen_subclasses(settings)
    classes = classes_to_build(settings, data, stored)
    network = build_network(settings.teacher, settings.teacher_set, classes, "teacher")
    taken = own_input(network, settings.teacher, settings.teacher_set, weights)
    notes = load_weights(network, weights, "teacher", (read_subclasses(weights), subclasses)) if weights else ()
    fed = feeding((settings.mean, settings.std), view, own=taken, stored=stored)
    preparation = Preparation(fed.mean, fed.std, device)
    give_shapes(network, preparation(view[None]), "teacher")
    kind = settings.teacher_answers or (stored.answers if stored else "logits")
    teacher = Teacher(
        network,
        preparation=preparation,
        precision=settings.precision,
        masked_classes=settings.mask_classes,
        answers=Answers(kind, subclasses=subclasses),
    )
    return teacher, (*notes, *fed.notes)


def _masked_notes(settings: ExtractSettings, data: Data) -> tuple[str, ...]:
    """A note where rows are labelled with masked classes."""
    if not (count := int(np.isin(data.labels, settings.mask_classes).sum())):
        return ()
    return (
        f"{count:,} rows are labelled with classes that --mask-classes names, to which their soft labels give no "
        "probability; the accuracy over views leaves them out",
    )


def open_text_job(settings: ExtractSettings, data: Data, plan: ViewPlan) -> TextJob:
    """Build the parts of the job; nothing is written. Raises InvalidInputError."""
    require_text_settings(settings, data)
    device, stored = chosen_device(settings.device), stored_identity(settings)
    network = build_network(settings.teacher, settings.teacher_set, data.classes, "teacher")
    notes = load_weights(network, settings.weights, "teacher") if settings.weights else ()
    teacher = TextTeacher(
        network,
        preparation=Preparation((), (), device),
        precision=settings.precision,
        masked_classes=settings.mask_classes,
        answers=Answers(settings.teacher_answers or (stored.teacher.answers if stored else "logits")),
    )
    order, order_identity = make_order(len(data), settings.order, settings.seed, sequence=data.sequence)
    texts = texts_of_order(order, data.sequence)
    tokens = teacher.prepared(data.samples[int(texts[0])][0][None])
    with first_views(network, tokens, "teacher", precision=settings.precision):
        classes = int(next(teacher.chunks(tokens))[1].shape[1])
    if data.vocabulary.size > classes:
        raise InvalidInputError(
            f"the teacher answers {classes:,} ids, and the tokenizer of {data.name} has {data.vocabulary.size:,}: name "
            "the teacher's own tokenizer, or a teacher of this vocabulary"
        )
    space = LabelSpace(classes, teacher.masked_classes)
    encoding = chosen_encoding(settings, space, contents_of(data.samples))
    parents, lineage = open_lineage(settings.weights, settings.parents)
    identity = validated(
        Identity,
        "the store's identity",
        dataset=with_fitting_labels(data.identity(), data, classes),
        order=order_identity,
        views=plan,
        teacher=teacher.identity(
            *recorded(settings.teacher, settings.teacher_set, network),
            classes,
            network_text(network, settings.teacher, stored.teacher.text if stored else ""),
        ),
        encoding=encoding,
        parents=parents,
    )
    dataset = ViewDataset(data.samples, texts, plan, none(), encoding.kinds_of_contents, data.ids)
    return TextJob(
        data=data,
        teacher=teacher,
        identity=identity,
        order=order,
        labels=data.labels[order].astype(np.int64),
        dataset=dataset,
        provenance=provenance(
            device, decoder=data.decoder, data=data.name, code=network_codes(network, settings.teacher)
        ),
        lineage=lineage,
        head={},
        views=settings.views,
        batch_rows=settings.batch_size,
        view_bytes=4 * data.sequence,
        is_new=stored is None,
        notes=(*data.notes, *notes, *teacher.text_notes),
    )


def require_text_settings(settings: ExtractSettings, data: Data) -> None:
    """Raises InvalidInputError for settings that say something of pictures alone."""
    pictures = {
        "--transform": settings.transform != "none",
        "--mix": settings.mix != "none",
        "--mean and --std": bool(settings.mean or settings.std),
        "--keep": bool(settings.keep),
        "--class-map": bool(settings.class_map),
        "--subclasses": settings.subclasses != 1,
        "--on-bad-sample strike": settings.on_bad_sample == "strike",
        "--fill-view-cache": bool(settings.fill_view_cache),
    }
    if wrong := [name for name, given in pictures.items() if given]:
        raise InvalidInputError(
            f"{', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} for pictures, and {data.name} holds texts of "
            f"{data.sequence} tokens; leave {'it' if len(wrong) == 1 else 'them'} out"
        )
