"""Maps, regions and measurements as DICOM, and the way into a PACS."""
