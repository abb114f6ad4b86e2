"""Every field of an experiment, with its choices, its unit and the section of the paper.

Brackets refer to DELG (Cao, Araujo, Sim, ECCV 2020), except [L2G], local-to-global (Aiger et al.,
2025). Other configurations call `get_config` and change a few fields.
"""

import ml_collections


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Returns all fields, with the paper's values where it gives them.

    Args:
      argument: must be empty; the default has no variants.

    Raises:
      UserError: if an argument is given.
    """
    from delg_jax.configuration import parse_argument

    parse_argument(argument, {})
    config = ml_collections.ConfigDict()
    config.seed = 0  # seed of every random draw
    config.model = _model()
    config.data = _data()
    config.train = _train()
    config.extract = _extract()
    config.search = _search()
    config.rerank = _rerank()
    config.eval = _eval()
    return config


def _model() -> ml_collections.ConfigDict:
    model = ml_collections.ConfigDict()
    # Backbone [4.1]
    # Vision Transformers: dinov2_{s,b,l,g}14, the same with _reg (registers),
    # siglip2_{b16,b32,l16,so400m14,so400m16,g16}_RESOLUTION. They need the convention dinov2 or
    # siglip, and the side of a patch (14, 16 or 32) as stride
    # An EfficientNet needs the convention efficientnet and stride 16
    model.backbone = "resnet50"  # tiny | resnet18 | resnet50 | resnet101 | efficientnet_lite0, 2
    # slim (paper) | keras (TF2 code) | keras_applications | torchvision | efficientnet
    # | dinov2 | siglip
    model.convention = "slim"  # how the backbone strides, pads and normalises; see above
    model.conv4_stride = 32  # pixels: 16 | 32; always 32 with slim, as in the paper
    model.conv4_block = 0  # block of a Vision Transformer that gives S, from 1; 0 = at two thirds
    model.pretrained = ""  # weights of another system: a file, or a published name; "" = random
    # slim | torchvision | keras | delg_savedmodel | delg_pytorch | efficientnet | dinov2 | siglip
    model.pretrained_source = ""  # naming scheme of these weights; "" = found from their names
    model.pretrained_mapping = ""  # JSON file that maps variable names; "" = the naming scheme
    model.checkpoint = ""  # folder of a training run; overrides pretrained; "" = none
    # Global head [3.2, equation 1]
    model.pooling = "gem"  # gem | avg | max
    model.gem_power = 3.0  # p in equation 1; the initial value if learned
    model.gem_learned = False  # whether training changes p; not in the paper
    model.whitening = True  # whether a fully connected layer follows pooling
    model.global_dim = 2048  # dimensions of the global descriptor, C_F in the paper
    model.global_loss = "arcface"  # arcface | softmax; decides the classifier [Table 2]
    # Local head [3.2]
    model.local_head = True  # False = global descriptors only
    model.attention = "learned"  # learned | norm (L2 norm of conv4; needs no training)
    model.attention_dim = 512  # channels of the first attention layer
    model.attention_pooling = "mean"  # mean (official code) | sum (equation 5)
    model.attention_normalize = True  # L2-normalise locations before pooling (official code)
    model.dim_reduction = "ae"  # ae | fc | none [Table 1]
    model.local_dim = 128  # dimensions of a local descriptor, C_T in the paper
    model.stop_gradient = True  # local losses do not change the backbone [3.3]
    model.num_classes = 0  # 0 = the number of classes in the training data
    return model


def _data() -> ml_collections.ConfigDict:
    data = ml_collections.ConfigDict()
    # For training: synthetic | folder | image_folder | gldv1 | gldv2 | gldv2_clean
    # For retrieval: synthetic | images (any tree of images) | revisited | revisited_oxford |
    # revisited_paris | gldv2 | gldv2_recognition | gldv2_clean_recognition (test queries against
    # all, or cleaned, training images) | ilias | folder, image_folder, gldv1 (two validation images
    # of each of 1000 classes, whose pairs Table 1 compares). TFDS prepares all but folder, ilias,
    # images and revisited, which are read in place.
    data.name = "synthetic"  # name of the data set; see above
    # If root is given, it must hold the files that the data in tfds_dir were prepared from. "" uses
    # prepared data as they are, or downloads the files (gldv2).
    # For images: a folder, a glob, a .txt list or a .tar, as `delg extract --images` takes it
    data.root = ""  # folder of the data set; "" = download, or use what is prepared
    # revisited: a file in root, by default the only gnd_*; gldv2: private (default) | public;
    # images: a file of that layout, by default none, which is enough to search
    data.ground_truth = ""  # which queries and answers; "" = the default
    data.distractors = ""  # folder of R1M, whose images are added to the database; "" = none
    # A landmark or an image in each line, as `delg overlap` writes it
    data.exclude = ""  # file of training images to leave out; "" = none
    data.tfds_dir = ""  # folder of the data that TFDS prepared; "" = the default of TFDS
    data.beam_options = ""  # options of Apache Beam for preparing data, as "--runner=DirectRunner"
    data.split_seed = 0  # seed of the choice of validation images (image_folder, gldv1, gldv2*)
    data.validation_share = 0.2  # share of each class [4.1], 0 = none; not of single-image classes
    data.synthetic = ml_collections.ConfigDict()
    data.synthetic.size = "small"  # small | tiny
    data.synthetic.seed = 0  # seed of the rendered landmarks
    data.memory_megabytes = 4096  # MB of features in memory; larger stores stay on disk
    data.max_skipped = 0  # most images that may be skipped before a run fails
    data.min_side = 16  # pixels; smaller images are skipped
    data.max_pixels = 100_000_000  # larger images are skipped without being decoded
    # Augmentation of training images [4.1]
    data.image_size = 512  # side of a training image, pixels
    data.crop_area = (0.08, 1.0)  # smallest and largest share of the image area
    data.crop_aspect = (0.75, 4.0 / 3.0)  # smallest and largest width / height
    data.flip = False  # flip horizontally with probability 1/2
    data.reduced_decode = True  # decode a JPEG at 1/2, 1/4 or 1/8 if its crop needs no more
    # Processes that decode images in training, threads that do so in extraction
    data.workers = -1  # 0 = decode in this process; -1 = one for each usable core, at most 32
    return data


def _train() -> ml_collections.ConfigDict:
    train = ml_collections.ConfigDict()
    train.steps = 1_500_000  # updates; about 25 epochs in the paper
    train.batch_size = 16  # images per update, over all devices of all processes
    train.accumulation_steps = 1  # parts into which a batch is split to save memory; 1 = not split
    train.learning_rate = 0.01  # initial value; the paper tries 3e-4 to 1e-2
    train.warmup_steps = 0  # updates in which the learning rate grows linearly from 0
    train.momentum = 0.9  # of SGD [4.1]
    train.weight_decay = 0.0  # w in w / 2 |kernels|^2, added to the loss
    train.clip_norm = 10.0  # largest global norm of the gradients (official code)
    train.heads = "joint"  # joint | global | local: the heads that learn [Tables 1, 2]
    train.freeze_backbone = False  # True = only the heads learn
    train.cache_features = False  # with a frozen backbone: compute the maps of whole images once
    train.cache_gigabytes = 8.0  # GB; largest such cache, in the workdir
    train.batch_norm = "train"  # train | frozen | sync (statistics over all devices)
    # Share of BatchNorm's running statistics that a step keeps; conventions: slim 0.997, keras,
    # keras_applications and efficientnet 0.99, others 0.9
    train.norm_momentum = 0.0  # 0 to below 1; 0 = that of the convention
    train.shard_classifier = False  # split the classes over the devices of a host; saves memory
    # Precision of float32 products and convolutions, on a GPU / TPU: default (TF32 if it has that /
    # one pass of bfloat16), high (TF32 / three passes), highest (float32 / six passes)
    train.matmul_precision = "default"  # default | high | highest: jax_default_matmul_precision
    train.dtype = "float32"  # float32 | bfloat16: of the computation; weights stay float32
    # Losses [3.3]
    train.arcface_margin = 0.1  # m, radians
    train.arcface_scale = 45.254834  # gamma, initially sqrt(2048)
    train.arcface_scale_learned = True  # learned in the paper, fixed in the official code
    train.global_weight = 1.0  # weight of the global loss
    train.reconstruction_weight = 10.0  # weight of the reconstruction loss, lambda in the paper
    train.attention_weight = 1.0  # weight of the attention loss, beta in the paper
    # Logging and checkpoints
    train.log_every = 100  # updates between log lines and metrics of training
    train.eval_every = 1000  # updates between evaluations on the validation images
    train.eval_images = 50_000  # of them, a fixed choice by data.split_seed; 0 = all
    train.checkpoint_every = 1000  # updates between checkpoints; runs resume from the last one
    train.keep_checkpoints = 10  # number of latest checkpoints to keep
    train.best_metric = "auto"  # its best checkpoint is kept too: auto = accuracy; "" = none
    train.chance_after = 1000  # updates after which validation accuracy still at chance is reported
    train.tensorboard = True  # write metrics and attention images; needs the extra [tensorboard]
    # Needs the extra [wandb]; its variables, such as WANDB_MODE=offline, say where the run goes
    train.wandb = ""  # project of Weights & Biases to write metrics to, too; "" = none
    # Runs that are stopped, and resume
    train.interrupted_status = 75  # exit status after SIGTERM or Ctrl-C; 75 = EX_TEMPFAIL
    train.resume_with = ""  # fields that may differ from the run's, as "train.learning_rate"
    return train


def _extract() -> ml_collections.ConfigDict:
    extract = ml_collections.ConfigDict()
    # Image pyramid [4.1]; the seven scales are 2^-2 to 2^1 in half octaves
    extract.local_scales = (0.25, 0.35355338, 0.5, 0.70710677, 1.0, 1.4142135, 2.0)  # seven
    extract.global_scales = (0.70710677, 1.0, 1.4142135)  # three; descriptors are averaged
    # Pooling that needs no training (SuperGlobal, Shao et al., ICCV 2023)
    extract.scale_pooling = "mean"  # mean | max (SuperGlobal): over the descriptors of the scales
    extract.gem_power = 0.0  # p of GeM; 0 = the model's; SuperGlobal: 4.6
    extract.regional = 0.0  # weight of 5 x 5 regional means, 0 to 1; SuperGlobal: 0.5
    extract.relup = 0.0  # least output of the units of conv2 to conv4; SuperGlobal: 0.014
    # Images and features
    extract.max_size = 1024  # longer side before the pyramid, pixels; 0 = original size
    extract.reduced_decode = False  # decode a JPEG at 1/2, 1/4 or 1/8 if max_size needs no more
    extract.max_features = 1000  # most local features of an image, over all scales
    extract.attention_threshold = 0.0  # tau; features with lower scores are dropped
    extract.attention_quantile = 0.0  # tau as a quantile in training: 0 = not used, 0.5, 0.75
    extract.nms_radius = 0  # non-maximum suppression per scale, positions of conv4; 0 = none
    extract.crop_queries = True  # crop each query to its box
    # PCA of local descriptors, fitted to database images [Table 1]
    extract.pca_dim = 0  # dimensions after PCA; 0 = no PCA
    extract.pca_whitening = 0.5  # exponent of whitening: 0 = none, 0.5 = half, 1 = full
    extract.pca_images = 100  # database images that PCA is fitted to
    # Features from files instead of a network; of the fields above only max_features is then used
    extract.imported_local = ""  # HDF5 of hloc, AMES; folder of these or .delg_local; "" = none
    extract.imported_global = ""  # HDF5 of hloc, ILIAS; folder of these or .delg_global; "" = none
    # Computation
    extract.dtype = "float32"  # float32 | bfloat16: of the computation
    extract.batch_pixels = 0  # pixels in a batch; 0 = one image on a CPU, else 4,194,304
    # Sides are padded to its multiples, so few shapes compile; 0 = to one of about ten canvases
    extract.shape_step = 64  # pixels
    # The store
    extract.chunk_images = 64  # images in a chunk, the unit of writing and reading
    extract.local_encoding = "float16"  # float32 | float16 | int8 | sign (one bit, DELG*)
    extract.global_dtype = "float32"  # float32 | float16: on disk
    extract.compression = 1  # level of Zstandard; 0 = none
    return extract


def _search() -> ml_collections.ConfigDict:
    search = ml_collections.ConfigDict()
    search.global_block = 65_536  # database images compared at a time
    # Local search [L2G]: the mean over query features of kernel(best similarity in the image)
    search.kernel = "threshold"  # identity | threshold | power | cann
    search.threshold = 0.6  # similarity below which a feature has no match, of kernel threshold
    search.power = 3.0  # exponent of kernel power
    search.reach = 1.0  # p0 of kernel cann: distance of unit vectors at which a vote becomes 0
    search.curve = 0.459176  # p1 of kernel cann
    # The engines cann and ivf take IDF weights from all images that they compare; asmk, see below
    search.idf_images = 0  # database images on which IDF weights are estimated; 0 = no weights
    search.idf_of = "features"  # features | words: estimated for each feature, or each word of asmk
    search.idf_power = 1.0  # exponent of the weights; of words, 2 is better
    # Without candidates, all images keep the similarity of the engine
    search.candidates = 0  # images found by another engine, then compared exactly; 0 = none
    search.estimated = 10_000  # images behind them, ranked by the engine; others are not ranked
    search.max_features = 200  # strongest features of an image that are compared; 0 = all
    search.engine = "exact"  # exact | cann | ivf | asmk
    search.local_block = 32  # database images compared at a time on each device
    search.query_block = 64  # queries compared at a time
    search.hamming = "popcount"  # popcount | products: how signs are compared
    # int8 needs the engine exact; with one bit, candidates are found in decoded features
    search.packed = False  # compare int8 or one-bit codes of the store without decoding them
    # Engine cann, constrained approximate nearest neighbours: similarities are estimated from the
    # cells of random grids that features share
    search.cann = ml_collections.ConfigDict()
    search.cann.norm = 120.0  # norm of the descriptors for which the radii are given
    search.cann.first_radius = 28.283  # r0; the 36 radii of the original end below p0
    search.cann.reach = 120.0  # p0: distance at which a vote becomes 0
    search.cann.curve = 0.459176  # p1 of the votes
    search.cann.approximation = 1.16594  # c; each radius is 1 + (c - 1) / 4 times the one before
    search.cann.grids = 20  # random grids per radius
    search.cann.axes = 0  # random axes of a grid; 0 = all dimensions
    search.cann.width = 1.0  # side of a grid cell, in units of the original's r c / sqrt(D)
    search.cann.seed = 0  # seed of rotations, shifts and hashing
    # Engine ivf, an inverted file: exact similarities within the cells nearest to a feature
    search.ivf = ml_collections.ConfigDict()
    search.ivf.count = 1000  # number of cells
    search.ivf.probes = 24  # nearest cells that are searched for each query feature
    search.ivf.seed = 0  # seed of the first centres, which are database features
    search.ivf.rounds = 2  # rounds of k-means
    # Engine asmk, an inverted file of one-bit features: signs of differences from visual words
    search.asmk = ml_collections.ConfigDict()
    search.asmk.words = 16_384  # visual words, at most 65,536
    search.asmk.aggregate = False  # one entry per image and word (ASMK*), not per feature (SMK*)
    search.asmk.rounds = 2  # rounds of k-means
    search.asmk.seed = 0  # seed of the first words, which are database features
    search.asmk.assignments = 5  # nearest words whose lists are searched for each query feature
    search.asmk.threshold = 0.25  # cosine of signs below which an entry has no vote
    search.asmk.power = 3.0  # exponent alpha of the votes
    search.asmk.idf = "hits"  # none | words (ASMK) | hits: by the images that a feature matches
    search.asmk.normalize = False  # divide by the images' similarities to themselves (ASMK)
    # Similarity graph
    search.graph_features = 0  # features of an image compared for the graph; 0 = max_features
    search.graph_neighbours = 1000  # neighbours stored for each database image
    search.graph_block = 32  # database images searched at a time, a chunk of the graph
    return search


def _rerank() -> ml_collections.ConfigDict:
    rerank = ml_collections.ConfigDict()
    # Spatial verification [4.1]
    rerank.sp = ml_collections.ConfigDict()
    rerank.sp.short_list = 100  # first images that are verified
    rerank.sp.max_features = 1000  # strongest features of an image that are matched
    rerank.sp.max_distance = 1.0  # largest L2 distance between unit descriptors of a match
    rerank.sp.ratio = 0.0  # Lowe's ratio; 0 = no ratio test
    rerank.sp.mutual = False  # keep only mutual nearest neighbours
    rerank.sp.one_bit = False  # match only the signs of descriptors (DELG*) [4.3]
    rerank.sp.hamming = "popcount"  # popcount | products: how signs are compared
    rerank.sp.hypotheses = 1000  # transformations tried for each image pair
    # In searches and matches of single pictures: of the query as it is shrunk to extract.max_size
    rerank.sp.inlier_threshold = 20.0  # largest error of an inlier, pixels of the query
    rerank.sp.model = "affine"  # affine (paper) | similarity | homography
    rerank.sp.scoring = "inliers"  # inliers (paper) | msac: chooses the best hypothesis
    rerank.sp.local_optimization = False  # refit the best hypotheses to their inliers
    rerank.sp.guided = False  # one hypothesis from each match's scales, instead of random ones
    rerank.sp.min_inliers = 15  # fewer count as 0; random matches reach 12 (ransac_inliers)
    rerank.sp.score = "inliers"  # inliers (paper) | combined with the global similarity (GLDv2)
    rerank.sp.pair_block = 10  # image pairs verified at a time on each device
    # Similarity embeddings by multidimensional scaling [L2G]
    rerank.mds = ml_collections.ConfigDict()
    rerank.mds.short_list = 400  # first images of the local search that are re-ranked
    # With profiles: similarities that are kept of each
    rerank.mds.dim = 128  # dimensions of the embedding; at most those of the short list
    rerank.mds.distance = "chord"  # chord sqrt(2-2s) | complement 1-s | reciprocal 1/s | power
    rerank.mds.contrast = 1.0  # similarity that is scaled to 1
    rerank.mds.scale_neighbours = 0  # scale similarities by those to the K best; 0 = not scaled
    rerank.mds.background = 0.0  # similarity that is scaled to 0
    rerank.mds.background_rank = 0  # rank in an image's list that is scaled to 0; 0 = not used
    rerank.mds.power = 1.0  # p of distance power, (1 - s)^p
    rerank.mds.missing = "zero"  # zero (similarity) | largest (distance) | row_minimum (similarity)
    # landmark is for long short lists; profile takes rows of similarities instead of an embedding,
    # and kernel SuperGlobal's step in similarities
    rerank.mds.method = "classical"  # classical | smacof | landmark | profile | kernel
    rerank.mds.landmarks = 200  # first images of the short list that method landmark embeds exactly
    rerank.mds.iterations = 30  # iterations of method smacof
    rerank.mds.missing_weight = 0.1  # weight of a missing pair in smacof; others have 1
    rerank.mds.concat_weight = 0.5  # share of the embedding beside the global descriptor, 0 to 1
    rerank.mds.neighbours = 0  # K of SuperGlobal's refinement of the vectors; 0 = none
    rerank.mds.beta = 0.3  # weight of a neighbour in that refinement
    rerank.mds.keep_first = 0  # first images of the local search that keep their places
    rerank.mds.weight = 0.3  # share of the embedding beside the local similarity, 0 to 1
    rerank.mds.query_block = 8  # queries embedded at a time
    # Similarities of index/graph, or of the images of a short list when it is searched
    rerank.mds.graph = "stored"  # stored | on_the_fly
    # Refinement of global descriptors (SuperGlobal, Shao et al., ICCV 2023)
    rerank.superglobal = ml_collections.ConfigDict()
    rerank.superglobal.short_list = 400  # first images of the global search that are re-ranked
    rerank.superglobal.neighbours = 9  # K, neighbours that refine a descriptor
    rerank.superglobal.beta = 0.15  # weight of a neighbour
    # Query expansion (Chum et al., ICCV 2007; with alpha, Radenovic et al., TPAMI 2019)
    rerank.qe = ml_collections.ConfigDict()
    rerank.qe.images = 10  # first images of the global search that are averaged with the query
    rerank.qe.alpha = 3.0  # exponent of their similarities as weights; 0 = equal weights
    # Diffusion on the similarity graph (Iscen et al., CVPR 2017)
    rerank.diffusion = ml_collections.ConfigDict()
    rerank.diffusion.neighbours = 50  # k, neighbours in the graph; only mutual ones are kept
    rerank.diffusion.query_neighbours = 10  # first images of a query, from which diffusion starts
    rerank.diffusion.power = 3.0  # gamma, exponent of similarities
    rerank.diffusion.spread = 0.99  # alpha, share that comes from the neighbours, below 1
    rerank.diffusion.iterations = 20  # of the conjugate gradient method
    return rerank


def _eval() -> ml_collections.ConfigDict:
    evaluation = ml_collections.ConfigDict()
    evaluation.methods = ("global", "global+sp", "local", "local+mds")  # rankings to evaluate
    evaluation.kappas = (1, 5, 10)  # ranks of the mean precisions
    # All that count are, for Google Landmarks v2, those that its metrics and re-rankings read, else
    # the whole database, as diffusion needs
    evaluation.depth = 0  # first images of a query that rankings keep; 0 = all that count
    # gldv2_recognition and gldv2_clean_recognition; the paper gives no number
    evaluation.recognition_top = 3  # training images whose scores are summed by landmark
    # Pairs of a query and a database image, ranked by inliers [Table 1]
    evaluation.pairs = 0  # pairs of the same landmark; 0 = no pairs; paper: 1000
    evaluation.negative_pairs = 1000  # pairs of different landmarks; paper: 199,000
    return evaluation
