"""Gets commands to Redis and answers back, whatever breaks."""
