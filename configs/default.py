"""Every field of an experiment, with its unit and the section of the paper it comes from.

Sections in brackets are those of DELG (Cao, Araujo, Sim, ECCV 2020); [L2G] is local-to-global
(Aiger et al., 2025). Other configs call `get_config` and change a few fields.
"""

import ml_collections


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Returns the whole tree with the paper's values where the paper gives one.

    Args:
      argument: must be empty: the default has no variants.

    Raises:
      UserError: if an argument is given.
    """
    from delg_jax.configuration import parse_argument

    parse_argument(argument, {})
    config = ml_collections.ConfigDict()
    config.seed = 0  # all random draws derive from it
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
    model.backbone = "resnet50"  # tiny | resnet18 | resnet50 | resnet101
    model.convention = "slim"  # slim (paper) | keras (TF2 code) | keras_applications | torchvision
    model.conv4_stride = 32  # pixels, 16 or 32; slim is always 32, as in the paper
    model.pretrained = ""  # weights from elsewhere to start from ("" = random)
    model.pretrained_source = "slim"  # slim | torchvision | keras | delg_savedmodel | delg_pytorch
    model.pretrained_mapping = ""  # JSON file of our variables to theirs, beyond the naming
    model.checkpoint = ""  # folder of a delg_jax training run; wins over pretrained
    # Global head [3.2, equation 1]
    model.pooling = "gem"  # gem | avg | max
    model.gem_power = 3.0  # p of equation 1, initial value if learned
    model.gem_learned = False  # paper: not learned
    model.whitening = True  # fully connected layer after pooling
    model.global_dim = 2048  # C_F
    model.global_loss = "arcface"  # arcface | softmax, decides the classifier [Table 2]
    # Local head [3.2]
    model.local_head = True  # False = global descriptors only
    model.attention = "learned"  # learned | norm (L2 norm of conv4, needs no training)
    model.attention_dim = 512  # channels of the first attention layer
    model.attention_pooling = "mean"  # mean (official code) | sum (equation 5)
    model.attention_normalize = True  # L2-normalise each location before pooling (official code)
    model.dim_reduction = "ae"  # ae | fc | none [Table 1]
    model.local_dim = 128  # C_T
    model.stop_gradient = True  # stop the local losses before the backbone [3.3]
    model.num_classes = 0  # 0 = as many as the training data has
    return model


def _data() -> ml_collections.ConfigDict:
    data = ml_collections.ConfigDict()
    # To train: synthetic | folder | image_folder | gldv1 | gldv2 | gldv2_clean
    # To search: synthetic | revisited | revisited_oxford | revisited_paris | gldv2 |
    # gldv2_recognition | gldv2_clean_recognition (test queries in all or cleaned training images)
    data.name = "synthetic"  # folder and revisited are read as they are, the others by TFDS
    # root must hold what data in tfds_dir were prepared of; "" = none needed, what is prepared as
    # it is, or else download (gldv2)
    data.root = ""  # folder with the files of the data set
    # revisited: file under root ("" = the only gnd_*); gldv2: usage, private ("") or public
    data.ground_truth = ""  # which queries and answers
    data.distractors = ""  # folder of R1M, whose images are added to the database
    data.tfds_dir = ""  # where TFDS keeps prepared data ("" = its default)
    data.beam_options = ""  # of Apache Beam, to prepare with it, as "--runner=DirectRunner"
    data.split_seed = 0  # of the draw of validation images (image_folder, gldv1, gldv2*)
    data.validation_share = 0.2  # of each class [4.1], 0 = none; a class of one image has none
    data.synthetic = ml_collections.ConfigDict()
    data.synthetic.size = "small"  # small | tiny, size of the synthetic data set
    data.synthetic.seed = 0  # seed of the rendered world
    data.memory_megabytes = 4096  # of features; stores that need more are read as they are used
    data.max_skipped = 0  # bad images tolerated before a run ends in an error
    data.min_side = 16  # pixels; smaller images are skipped
    data.max_pixels = 100_000_000  # larger images are refused before decoding
    # Augmentation of training images [4.1]
    data.image_size = 512  # pixels, square
    data.crop_area = (0.08, 1.0)  # share of the image area
    data.crop_aspect = (0.75, 4.0 / 3.0)  # width / height
    data.flip = False  # horizontal flip, each with probability 1/2
    data.reduced_decode = True  # a JPEG is decoded only as large as its crop needs (1/2, 1/4, 1/8)
    data.workers = 2  # decoding processes; 0 = in this process
    return data


def _train() -> ml_collections.ConfigDict:
    train = ml_collections.ConfigDict()
    train.steps = 1_500_000  # updates; about 25 epochs in the paper
    train.batch_size = 16  # over all devices of all processes
    train.accumulation_steps = 1  # parts of a batch computed one after the other, to save memory
    train.learning_rate = 0.01  # initial; the paper sweeps [3e-4, 1e-2]
    train.warmup_steps = 0  # linear, from 0
    train.momentum = 0.9  # of SGD [4.1]
    train.weight_decay = 0.0  # w / 2 |kernels|^2 in the loss, not of BatchNorm and biases
    train.clip_norm = 10.0  # global gradient norm (official code)
    train.heads = "joint"  # joint | global | local: which heads learn [Table 1, 2]
    train.freeze_backbone = False  # True = only the heads learn
    train.cache_features = False  # frozen backbone: maps of whole images, computed once
    train.cache_gigabytes = 8.0  # largest such cache, under the workdir
    train.batch_norm = "train"  # train | frozen | sync (statistics over all devices)
    train.dtype = "float32"  # float32 | bfloat16 compute; weights stay float32
    # Losses [3.3]
    train.arcface_margin = 0.1  # m, radians
    train.arcface_scale = 45.254834  # initial gamma = sqrt(2048)
    train.arcface_scale_learned = True  # paper: learned; official code: fixed
    train.global_weight = 1.0  # the other two are relative to it
    train.reconstruction_weight = 10.0  # lambda
    train.attention_weight = 1.0  # beta
    # Bookkeeping, in steps
    train.log_every = 100  # losses, accuracies and rates in the metrics and the log
    train.eval_every = 1000  # losses and accuracies on validation images
    train.checkpoint_every = 1000  # a stopped run goes on from the last
    train.keep_checkpoints = 10  # how many of the last ones; not in steps
    train.best_metric = "validation_global_accuracy"  # the best by it is kept too ("" = none)
    train.chance_after = 1000  # validation accuracy still at chance is reported from here on
    train.tensorboard = True  # metrics and attention pictures, with the extra [tensorboard]
    return train


def _extract() -> ml_collections.ConfigDict:
    extract = ml_collections.ConfigDict()
    # Image pyramid [4.1]; the seven scales are 2^(-2 ... 1) in half octaves
    extract.local_scales = (0.25, 0.35355338, 0.5, 0.70710677, 1.0, 1.4142135, 2.0)  # seven
    extract.global_scales = (0.70710677, 1.0, 1.4142135)  # three, their descriptors are averaged
    # Test-time pooling, which needs no training (SuperGlobal, Shao et al., ICCV 2023)
    extract.scale_pooling = "mean"  # mean | max (SuperGlobal) over the scales' descriptors
    extract.gem_power = 0.0  # p of GeM in the place of the model's; SuperGlobal: 4.6; 0 = model's
    extract.regional = 0.0  # share of 5 x 5 regional means before pooling; SuperGlobal: 0.5
    extract.relup = 0.0  # least output of the units of conv2 to conv4; SuperGlobal: 0.014
    # What is extracted
    extract.max_size = 1024  # pixels, longest side before the pyramid; 0 = as it is
    extract.max_features = 1000  # over all scales
    extract.attention_threshold = 0.0  # tau; features below are dropped
    extract.attention_quantile = 0.0  # tau as a quantile in training: 0 = none, 0.5, 0.75
    extract.nms_radius = 0  # cells; a feature must be the best within this radius of its level
    extract.crop_queries = True  # crop a query to its box
    # PCA of local descriptors, as the network gives them, fitted on database images [Table 1]
    extract.pca_dim = 0  # 0 = no PCA
    extract.pca_whitening = 0.5  # exponent share: 0 = none, 0.5 = half, 1 = full
    extract.pca_images = 100  # database images to fit on
    # Features from files instead of a network; the fields above but max_features then do nothing
    extract.imported_local = ""  # hloc's .h5, or a folder of .delg_local files ("" = none)
    extract.imported_global = ""  # hloc's .h5, or a folder of .delg_global files ("" = none)
    # Execution
    extract.dtype = "float32"  # float32 | bfloat16 compute
    extract.batch_pixels = 0  # in a batch of one shape; 0 = one image on a CPU, else 4,194,304
    extract.shape_step = 64  # pixels; padded sides are multiples, which bounds compilation
    # The store
    extract.chunk_images = 64  # images in a chunk, which is written and read whole
    extract.local_encoding = "float16"  # float32 | float16 | int8 | sign (one bit, DELG*)
    extract.global_dtype = "float32"  # float32 | float16 on disk
    extract.compression = 1  # level of Zstandard; 0 = none
    return extract


def _search() -> ml_collections.ConfigDict:
    search = ml_collections.ConfigDict()
    search.global_block = 65_536  # database images in a block of similarities
    # Local search [L2G]: mean over query features of k(best cosine in the image)
    search.kernel = "threshold"  # identity | threshold | power | cann
    search.threshold = 0.6  # cosine below which a feature has no match
    search.power = 3.0  # exponent of the power kernel
    search.reach = 1.0  # p0 of CANN's kernel, where its votes end: distance of unit vectors
    search.curve = 0.459176  # p1 of CANN's kernel
    search.idf_images = 0  # of the database; votes weigh by how few of them have the feature
    search.max_features = 200  # strongest features of an image that take part; 0 = all
    search.engine = "exact"  # exact | cann | cells, how local similarities are found
    search.local_block = 32  # database images in a block of similarities, on each device
    search.query_block = 64  # queries compared at a time
    search.hamming = "popcount"  # popcount | products, how signs are compared
    search.packed = False  # compare int8 or one-bit codes of the store as they are, not decoded
    # Constrained approximate nearest neighbours: estimated by shared cells of random grids
    search.cann = ml_collections.ConfigDict()
    search.cann.norm = 120.0  # of the descriptors for which the radii are given
    search.cann.first_radius = 28.283  # r0; the original's 36 radii end below p0
    search.cann.reach = 120.0  # p0, where votes end
    search.cann.curve = 0.459176  # p1 of the votes
    search.cann.approximation = 1.16594  # c; radii grow by 1 + (c - 1) / 4
    search.cann.grids = 20  # grids at each radius
    search.cann.axes = 0  # random axes that make a cell, 0 = all
    search.cann.width = 1.0  # side of a cell, in the original's r c / sqrt(D)
    search.cann.seed = 0  # of rotations, shifts and hashing
    # Exact cosines within the cells nearest to a feature, of a Voronoi diagram
    search.ivf = ml_collections.ConfigDict()
    search.ivf.count = 1000  # cells
    search.ivf.probes = 24  # nearest cells of a query feature that are looked into, at most all
    search.ivf.seed = 0  # of the features that are the first centres
    search.ivf.rounds = 2  # of k-means, that move them
    search.graph_features = 0  # of a database image in the similarity graph; 0 = max_features
    search.graph_neighbours = 1000  # similarities kept per database image
    search.graph_block = 32  # database images searched at a time, a chunk of the graph
    return search


def _rerank() -> ml_collections.ConfigDict:
    rerank = ml_collections.ConfigDict()
    # Spatial verification [4.1]
    rerank.sp = ml_collections.ConfigDict()
    rerank.sp.short_list = 100  # images
    rerank.sp.max_features = 1000  # strongest features of an image that take part
    rerank.sp.max_distance = 1.0  # L2 distance between unit descriptors
    rerank.sp.ratio = 0.0  # Lowe's ratio; 0 = no ratio test
    rerank.sp.mutual = False  # keep mutual nearest neighbours only
    rerank.sp.one_bit = False  # match the signs of descriptors only (DELG*) [4.3]
    rerank.sp.hamming = "popcount"  # popcount | products, how signs are compared
    rerank.sp.hypotheses = 1000  # transformations tried per image pair
    rerank.sp.inlier_threshold = 20.0  # pixels
    rerank.sp.model = "affine"  # affine (paper) | similarity | homography
    rerank.sp.scoring = "inliers"  # inliers (paper) | msac, decides the best hypothesis
    rerank.sp.local_optimization = False  # refit the best hypotheses to their inliers
    rerank.sp.guided = False  # a hypothesis per match by its scales, in the place of random ones
    rerank.sp.min_inliers = 15  # fewer count as none; chance finds up to 12 (bench_ransac)
    rerank.sp.score = "inliers"  # inliers (paper) | combined with the global similarity (GLDv2)
    rerank.sp.pair_block = 10  # image pairs verified at a time on each device
    # Similarity embeddings by multidimensional scaling [L2G]
    rerank.mds = ml_collections.ConfigDict()
    rerank.mds.short_list = 400  # images of the local search that are re-ranked
    rerank.mds.dim = 128  # dimension of the embedding; a shorter list needs fewer
    rerank.mds.distance = "chord"  # chord sqrt(2-2s) | complement 1-s | reciprocal 1/s | power
    rerank.mds.contrast = 1.0  # similarity that counts as 1
    rerank.mds.background = 0.0  # similarity that counts as 0
    rerank.mds.background_rank = 0  # rank in an image's list whose similarity is its 0; 0 = none
    rerank.mds.power = 1.0  # p of the distance power, (1 - s)^p
    rerank.mds.missing = "zero"  # similarity 0 | largest (distance) | row_minimum (similarity)
    rerank.mds.method = "classical"  # classical | smacof | landmark (of a long short list)
    rerank.mds.landmarks = 200  # first images of the short list, of method landmark
    rerank.mds.iterations = 30  # of smacof
    rerank.mds.missing_weight = 0.1  # of a missing pair in smacof, beside the 1 of the others
    rerank.mds.concat_weight = 0.5  # share of the embedding beside the global descriptor
    rerank.mds.neighbours = 0  # K of SuperGlobal's step on the embedding, by means; 0 = none
    rerank.mds.beta = 0.3  # weight of a neighbour in that step
    rerank.mds.weight = 0.3  # share of the embedding beside the local similarity
    rerank.mds.query_block = 8  # queries embedded at a time
    # Refined global descriptors (SuperGlobal, Shao et al., ICCV 2023)
    rerank.superglobal = ml_collections.ConfigDict()
    rerank.superglobal.short_list = 400  # images of the global search that are re-ranked
    rerank.superglobal.neighbours = 9  # K
    rerank.superglobal.beta = 0.15  # weight of a neighbour
    # Query expansion (Chum et al., ICCV 2007; with alpha, Radenovic et al., TPAMI 2019)
    rerank.qe = ml_collections.ConfigDict()
    rerank.qe.images = 10  # best of the global search, averaged with the query
    rerank.qe.alpha = 3.0  # exponent of their cosines as weights; 0 = all weigh the same
    # Diffusion on the similarity graph (Iscen et al., CVPR 2017)
    rerank.diffusion = ml_collections.ConfigDict()
    rerank.diffusion.neighbours = 50  # k, best of an image in the graph; mutual ones are joined
    rerank.diffusion.query_neighbours = 10  # best images of a query, where its similarity starts
    rerank.diffusion.power = 3.0  # gamma, exponent of similarities
    rerank.diffusion.spread = 0.99  # alpha, share that comes from the neighbours
    rerank.diffusion.iterations = 20  # of the conjugate gradient method
    return rerank


def _eval() -> ml_collections.ConfigDict:
    evaluation = ml_collections.ConfigDict()
    evaluation.methods = ("global", "global+sp", "local", "local+mds")  # columns of the table
    evaluation.kappas = (1, 5, 10)  # ranks of the mean precisions
    evaluation.depth = 0  # images of a query that rankings keep; 0 = all, as diffusion needs
    # Training images whose scores are summed by landmark; the paper leaves it open
    evaluation.recognition_top = 3  # gldv2_recognition and gldv2_clean_recognition
    # Pairs of a query and a database image, ranked by inliers [Table 1]
    evaluation.pairs = 0  # of the same landmark; 0 = no pairs (paper: 1000)
    evaluation.negative_pairs = 1000  # of different landmarks (paper: 199,000)
    return evaluation
