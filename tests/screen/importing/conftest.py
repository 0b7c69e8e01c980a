"""Small files of every format, and a way to spoil them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

# Two lines with two replicates each, started from two plasmid batches (the first has two samples); six sgRNAs.
COUNTS = """\
,AAA,CCC,GGG,TTT,ACG,TGC
HEL_A,30,10,40,20,0,100
HEL_B,60,20,80,40,10,190
KU_A,10,30,40,20,50,50
KU_B,5,15,20,10,25,
pool_1a,20,20,20,20,20,100
pool_1b,80,20,20,20,20,40
pool_2,10,10,10,10,10,50
"""
SEQUENCE_MAP = """\
sequence_ID,ScreenID,days,pDNA_batch,Replicate,ScreenType,cell_line_name,PassesQC
HEL_A,SC-1,21,1,A,2DS,ACH-000004,True
HEL_B,SC-1,21,1,B,2DS,ACH-000004,False
KU_A,SC-2,14,2,A,2DS,ACH-000074,True
KU_B,SC-2,14,2,B,2DS,ACH-000074,True
pool_1a,pDNA,0,1,,pDNA,pDNA,True
pool_1b,pDNA,0,1,,pDNA,pDNA,True
pool_2,pDNA,0,2,,pDNA,pDNA,True
"""
GUIDE_MAP = """\
sgrna,GenomeAlignment,gene,nAlignments,DropReason,UsedByChronos
AAA,chr3_1_-,PIK3CB (5291),1.0,,True
CCC,chr3_2_-,PIK3CB (5291),1.0,,True
GGG,chr7_3_+,BRAF (673),2.0,,True
TTT,chr7_4_+,BRAF (673),1.0,,True
ACG,chr12_5_+,KRAS (3845),1.0,,True
TGC,chr12_6_+,KRAS (3845),1.0,,True
"""
LINES = """\
ModelID,PatientID,CellLineName,OncotreeLineage
ACH-000004,PT-1,HEL,Myeloid
ACH-000074,PT-2,KU812,Lymphoid
ACH-999999,PT-3,unused,Skin
"""
# As on the portal: the first column has no name, the map is of all libraries, plasmids have no model.
FOLD_CHANGES = """\
,HEL_A,HEL_B,KU_A
AAA,-1.5,-1.25,0.5
CCC,-1.0,-0.75,0.25
GGG,0.125,0.0,
TTT,0.25,0.125,-2.5
"""
SCREEN_SEQUENCE_MAP = """\
SequenceID,ScreenID,ModelConditionID,ModelID,ScreenType,Library,Days,pDNABatch,PassesQC,ExcludeFromCRISPRCombined
HEL_A,SC-1,MC-1,ACH-000004,2DS,Avana,21,Avana-3,True,False
HEL_B,SC-1,MC-1,ACH-000004,2DS,Avana,21,Avana-3,True,False
KU_A,SC-2,MC-2,ACH-000074,2DS,Avana,21,Avana-4,False,False
other,SC-3,MC-3,ACH-000074,2DS,KY,14,KY-1,True,False
pool,,,,pDNA,Avana,,Avana-3,True,False
"""
PORTAL_GUIDE_MAP = """\
sgRNA,GenomeAlignment,Gene,nAlignments,UsedByChronos,DropReason
AAA,chr3_1_-,PIK3CB (5291),1,True,
CCC,chr3_2_-,PIK3CB (5291),1,True,
GGG,chr7_3_+,BRAF (673),2,True,
TTT,chr7_4_+,BRAF (673),1,True,
TTT,chr9_9_+,MADEUP (1),2,False,multiple alignments
"""
MAGECK = """\
sgRNA\tGene\tT0\tHEL_T14_A\tHEL_T14_B\tKU_T14_A
A1CF_1\tA1CF\t213\t883\t400\t175
A1CF_2\tA1CF\t294\t1554\t500\t1891
BRAF_1\tBRAF\t421\t66\t50\t759
BRAF_2\tBRAF\t100\t10\t20\t90
"""
SHEET = """\
sample,depmap_id,role,lineage,note
T0,HEL,initial,leukemia,plasmid
HEL_T14_A,HEL,final,leukemia,first
HEL_T14_B,HEL,final,leukemia,second
KU_T14_A,KU812,final,blood,first
"""
BAGEL = """\
REAGENT_ID\tGENE\tT18_A\tT18_B
s1\tAARS\t-3.125\t-2.500
s2\tAARS\t-2.250\t-2.750
s3\tABCG8\t0.125\t0.250
s4\tABCG8\t-0.250\t0.500
s5\tNO_GENE_NAME\t0.000\t0.000
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All the files, each format's maps beside its matrix."""
    files = {
        "chronos/TinyReadcounts.csv": COUNTS,
        "chronos/TinySequenceMap.csv": SEQUENCE_MAP,
        "chronos/TinyGuideMap.csv": GUIDE_MAP,
        "chronos/lines.csv": LINES,
        "depmap/AvanaLogfoldChange.csv": FOLD_CHANGES,
        "depmap/ScreenSequenceMap.csv": SCREEN_SEQUENCE_MAP,
        "depmap/AvanaGuideMap.csv": PORTAL_GUIDE_MAP,
        "depmap/Model.csv": LINES,
        "mageck/counts.txt": MAGECK,
        "mageck/samples.csv": SHEET,
        "bagel/HCT116.foldchange": BAGEL,
        "controls.txt": "Gene\nABCG8 (64241)\nBRAF (673)\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    write_hdf5(tmp_path / "chronos/TinyReadcounts.hdf5", pd.read_csv(io.StringIO(COUNTS), index_col=0))
    return tmp_path


@pytest.fixture
def spoil(folder: Path) -> Callable[[str, str, str], Path]:
    """Replace a text that is there once in a file."""

    def replace(name: str, old: str, new: str) -> Path:
        path = folder / name
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        return path

    return replace


def write_hdf5(path: Path, matrix: pd.DataFrame) -> None:
    """Write a matrix as chronos.write_hdf5 does."""
    with h5py.File(path, "w") as file:
        file["data"] = matrix.to_numpy(dtype=float)
        for name, labels in (("dim_0", matrix.index), ("dim_1", matrix.columns)):
            file.create_dataset(name, data=np.array(labels, dtype=object), dtype=h5py.string_dtype())
